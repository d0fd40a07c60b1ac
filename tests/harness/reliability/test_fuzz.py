"""Mutated configs and files of rows: read, or refused with one message; never another error, never for long.

SAFEBASIN_FUZZ says how many of each; `make test-fuzz` takes 10,000.
"""

import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.config import task_checks
from safebasin.harness.config.load import load_config
from safebasin.tasks.rows.reader import read_rows

ROOT = Path(__file__).resolve().parents[3]
COUNT = int(os.environ.get("SAFEBASIN_FUZZ", "150"))
BITS = (
    *("null", "[]", "{}", "true", "~", "-1", "0", ".nan", ".inf", "1e999", "0x", "0b2", "1:60:99", "9" * 5000),
    *("a" * 5000, "---", "...", "\\", ": "),
    *("!!int abc", "!!float x", "!!bool x", "!!timestamp x", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]"),
    *("!!python/object:os.system x", "2024-13-45", "2024-01-01: x", "? [1, 2]\n: x", "{? {a: 1} : 2}"),
    *("&a [*a]", "&a {b: *a}", "*a", "<<: *a", "&b [&c [x, x], *c, *c]", "[" * 500, "{" * 300, "- " * 60),
    *("\t", "\x00", "\x1b[31m", "\u202e", "\u2028", "é", '"\\ud800"', "'", '"', "|", ">", "%", "@", "`"),
)  # fmt: skip
CELLS = (*BITS, "[[[[", "1", "1.5", '{"a": 1}', '"x"', "NaN", "Infinity", "[" * 30_000)
CONFIGS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "configs").glob("*.yaml"))]
ROWS = (
    ("jsonl", "\n".join(json.dumps({"prompt": f"p {i}", "response": f"r {i}"}) for i in range(5))),
    ("json", json.dumps([{"instruction": "a", "input": "b", "output": "c"}] * 3, indent=1)),
    ("csv", 'prompt,target\n"a, b",c\nd,e\n'),
    ("tsv", "goal\ttarget\tbehavior\na\tb\tc\n"),
    ("jsonl", '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}\n' * 3),
    ("jsonl", '{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]}\n' * 3),
)  # fmt: skip

Read = Callable[[Path], object]


def mutated(text: str, draw: random.Random) -> str:
    """Some lines with another value, taken away, doubled, moved, or with something in the middle of them."""
    lines = text.split("\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        line, bit, column = lines[at], draw.choice(BITS), draw.randint(0, len(lines[at]))
        lines[at : at + 1] = draw.choice(
            [
                [line.split(":")[0] + ": " + bit],
                [bit, line],
                [],
                [line, lines[draw.randrange(len(lines))]],
                [" " * draw.randint(0, 6) + line.strip()],
                [line[:column] + bit + line[column:]],
            ]
        )
        lines = lines or [""]
    return "\n".join(lines)


def configs(folder: Path) -> Iterator[tuple[Path, Read]]:
    for seed in range(COUNT):
        draw = random.Random(seed)
        path = folder / "config.yaml"
        path.write_bytes(mutated(draw.choice(CONFIGS), draw).encode())
        yield path, load_config


def rows(folder: Path) -> Iterator[tuple[Path, Read]]:
    for seed in range(COUNT):
        draw = random.Random(seed)
        ending, text = draw.choice(ROWS)
        if draw.random() < 0.5:
            first, last = draw.choice([found.span() for found in re.finditer(r'"[^"]*"|\w+', text)])
            text = text[:first] + draw.choice(CELLS) + text[last:]
        else:
            text = mutated(text, draw)
        path = folder / f"rows.{ending}"
        path.write_bytes(text.encode())
        needs = draw.choice([("prompt",), ("prompt", "response")])
        yield path, lambda path, needs=needs: read_rows(str(path), needs)  # type: ignore[misc]


def fuzzed(name: str, inputs: Iterable[tuple[Path, Read]]) -> None:
    """Reads each file: more than a tenth are refused, in short messages and soon, and nothing else is raised."""
    refused = longest = 0.0
    longest_message = 0
    for number, (path, read) in enumerate(inputs):
        begun = time.process_time()
        try:
            read(path)
        except InputError as error:
            refused += 1
            longest_message = max(longest_message, len(str(error).encode()))
        except Exception as error:  # whatever it is, it is the fault that is looked for
            path.rename(path.with_name(f"fault-{number}{path.suffix}"))
            raise AssertionError(f"input {number}: {type(error).__name__}: {error}") from error
        longest = max(longest, time.process_time() - begun)
    assert refused > 0.1 * COUNT
    assert longest_message < 100_000
    assert longest < 20
    print(f"{COUNT} of {name}: {refused:.0f} refused, the longest took {longest:.1f} s")  # noqa: T201


@pytest.mark.parametrize("inputs", [configs, rows])
def test_a_mutated_file_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: Callable[[Path], Iterator[tuple[Path, Read]]]
) -> None:
    monkeypatch.setattr(task_checks, "lm_eval_tasks", lambda: frozenset({"arc_easy"}))  # reading them takes seconds
    fuzzed(inputs.__name__, inputs(tmp_path))


BOMB = "name: x\na: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit: !!int abc", "line 1: 'abc' is no int"),
        ("name: x\ndate: 2024-13-45", "line 2: '2024-13-45' is no timestamp"),
        ("limit: " + "9" * 5000, "line 1: '9999"),
        ("2024-01-01: x", "line 1: a key must be text"),
        ("? [1, 2]\n: x", "line 1: a key must be text"),
        ("a: &a [*a]", "line 1: an alias stands inside what it stands for"),
        ("a: " + "[" * 60 + "]" * 60, "line 1: it is nested more than 40 levels deep"),
        ("a: " + "[" * 20_000, "nested too deeply"),
        (BOMB, "it has more than 100000 entries, aliases written out"),
        ("name: " + "a" * 30_000, "line 1: a value has more than 20000 characters"),
        ('name: "\\ud800"', "line 1: a value holds half of a character"),
        ("a: " + " " * 2**20, "has more than 1048576 bytes"),
    ],
)
def test_what_is_past_the_bounds_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as told:
        load_config(path)
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("null", "line 2"),
        ("[" * 50_000, "line 2: nested too deeply"),
        ('{"prompt": "\\ud83d"}', "line 2: holds half of a character"),
        ('{"prompt": ' + "9" * 5000 + "}", "line 2"),
    ],
)
def test_a_row_that_is_none_is_told_with_its_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(InputError) as told:
        read_rows(str(path))
    assert said in str(told.value)


def test_an_emoji_written_as_two_halves_is_a_character(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "\\ud83d\\ude00"}\n')
    assert read_rows(str(path)).rows == [{"prompt": "😀"}]


def test_an_override_past_the_bounds_is_told(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: x\n")
    with pytest.raises(InputError, match=r"a=\[\[.*nested"):
        load_config(path, ["a=" + "[" * 5000])
