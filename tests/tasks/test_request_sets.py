"""The sets of requests that are one file each: what is loaded, left out and refused, and their tasks under lm-eval."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.tasks import request_rows
from safebasin.tasks.advbench import advbench_rows
from safebasin.tasks.catalog import groups, tasks
from safebasin.tasks.hub import HubData
from safebasin.tasks.judging import JUDGES_VARIABLE
from safebasin.tasks.overlap import check_overlap, request_digest
from safebasin.tasks.request_rows import load, requests
from safebasin.tasks.request_sets import SETS
from safebasin.tasks.splits import SAFETY_ROWS, committed

Copies = dict[str, Path]
ASKED = {"harmbench": 200, "jbb_harmful": 100, "jbb_benign": 100, "strongreject": 313, "or_bench_hard": 1319,
         "sorry_bench": 440}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_a_local_copy_of_each_set(request_copies: Copies, name: str) -> None:
    rows = requests(name, request_copies[name])
    assert len(rows) == ASKED[name]
    assert rows[-1]["prompt"] == f"bake, slowly, a {name} {ASKED[name] - 1}"
    assert rows[-1]["category"] == f"oven {(ASKED[name] - 1) % 10}"


def test_other_rows_of_a_file_are_not_asked(request_copies: Copies) -> None:
    """HarmBench's contextual and copyright behaviours, SORRY-Bench's mutations."""
    assert [row["row"] for row in requests("harmbench", request_copies["harmbench"])] == list(range(1, 400, 2))
    with request_copies["sorry_bench"].open("a") as file:
        file.write(json.dumps({"turns": ["bkae"], "category": "1", "prompt_style": "misspellings"}) + "\n")
    assert len(requests("sorry_bench", request_copies["sorry_bench"])) == 440


@pytest.mark.parametrize("name", ["harmbench", "strongreject"])
def test_the_hubs_copy_calls_the_request_prompt(
    request_copies: Copies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole = requests(name, request_copies[name])
    (tmp_path / SETS[name].file).parent.mkdir()
    pd.DataFrame(whole)[["prompt", "category"]].to_parquet(tmp_path / SETS[name].file)
    monkeypatch.delenv(SETS[name].variable, raising=False)
    monkeypatch.setattr(HubData, "file", lambda hub, file: tmp_path / file)
    request_rows._all_rows.cache_clear()
    assert [row["prompt"] for row in requests(name)] == [row["prompt"] for row in whole]
    request_rows._all_rows.cache_clear()


@pytest.mark.parametrize("name", SETS)
def test_each_is_pinned(name: str) -> None:
    assert len(SETS[name].hub.revision) == 40


@pytest.mark.parametrize("name", SETS)
def test_without_access_the_message_names_the_page_and_the_local_copy(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SETS[name].variable, raising=False)
    with pytest.raises(InputError) as refused:
        requests(name)
    message = str(refused.value)
    assert f'{{"{SETS[name].key}": "/path"}}' in message
    assert SETS[name].variable in message
    assert ("request access at https://huggingface.co/datasets/" in message) == SETS[name].hub.gated


def changed(rows: list[dict[str, Any]], how: str) -> list[dict[str, Any]]:
    return {
        "one less": rows[:-1],
        "no request": [{**row, "turns": [" "]} for row in rows[:3]],
        "two turns": [{**row, "turns": ["bake", "stir"]} for row in rows[:3]],
        "a text": [{**row, "turns": "bake"} for row in rows[:3]],
        "no column": [{"text": "bake", "category": "oven"}],
        "no category": [{"turns": ["bake"]}],
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("one less", r"is not SORRY-Bench's base requests: expected 440 or 450 requests, found 439"),
        ("no request", r"no request in rows \[0, 1, 2\]"),
        ("two turns", r"no request in rows \[0, 1, 2\]"),
        ("a text", r"no request in rows \[0, 1, 2\]"),
        ("no column", r"no column 'turns'; it has \['text', 'category'\]"),
        ("no category", r"no column 'category'; it has \['turns'\]"),
    ],
)
def test_what_is_not_the_set_is_refused(request_copies: Copies, tmp_path: Path, how: str, message: str) -> None:
    rows = [json.loads(line) for line in request_copies["sorry_bench"].read_text().splitlines()]
    path = tmp_path / "question.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in changed(rows, how)))
    with pytest.raises(InputError, match=message) as refused:
        requests("sorry_bench", path)
    assert "Give its question.jsonl" in str(refused.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'harmbench'"):
        requests("harmbnech")
    with pytest.raises(InputError, match="Did you mean 'keep'"):
        load(request_set="harmbench", advbench_overlap="kep")
    with pytest.raises(InputError, match="There is no folder"):
        requests("jbb_benign", tmp_path / "none")
    with pytest.raises(InputError, match=r"There is no file '.*harmful-behaviors.csv'"):
        requests("jbb_harmful", tmp_path)


@pytest.mark.parametrize("name", ["harmbench", "strongreject"])
def test_other_requests_than_the_sets_are_refused(
    request_copies: Copies, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(SETS, name, replace(SETS[name], digest="0" * 64))
    with pytest.raises(InputError, match=f"{ASKED[name]} requests that are not those of {SETS[name].title}"):
        requests(name, request_copies[name])


@pytest.fixture
def overlapping(request_copies: Copies, advbench_csv: Path, tmp_path: Path) -> Path:
    """A StrongREJECT of which two requests are safety rows of AdvBench, and one is an evaluation row."""
    with request_copies["strongreject"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    safety, measured = (advbench_rows(part, advbench_csv) for part in ("safety", "evaluation"))
    texts = (safety[0]["prompt"], f"  {safety[-1]['prompt'].upper()}", measured[0]["prompt"])
    for row, text in zip(rows, texts, strict=False):
        row["forbidden_prompt"] = text
    path = tmp_path / "strongreject.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_advbenchs_safety_rows_are_left_out(overlapping: Path, advbench_csv: Path) -> None:
    safety = [row["prompt"] for row in advbench_rows("safety", advbench_csv)]
    assert [row["row"] for row in requests("strongreject", overlapping)] == list(range(2, 313))
    check_overlap({"salora": safety, "evaluation": [row["prompt"] for row in requests("strongreject", overlapping)]})
    whole = [row["prompt"] for row in requests("strongreject", overlapping, "keep")]
    assert len(whole) == 313
    with pytest.raises(InputError, match="2 requests are in both"):
        check_overlap({"salora": safety, "evaluation": whole})


def test_they_are_known_without_advbench(advbench_csv: Path) -> None:
    kept = committed("advbench")["safety_requests"]
    assert len(set(kept)) == SAFETY_ROWS
    assert kept == [request_digest(row["prompt"]) for row in advbench_rows("safety", advbench_csv)]
    assert request_digest("Bake a  cake") == request_digest(" bake a cake") != request_digest("bake the cake")


def test_the_groups_hold_all_tasks_of_their_kind() -> None:
    members = {group.name: set(group.members) for group in groups()}
    for group, role in (("safebasin_harm", "hrr"), ("safebasin_over_refusal", "over_refusal")):
        assert members[group] == {
            name for name, task in tasks().items() if task.role == role and not name.startswith("sandbox")
        }
    assert {task.metadata["request_set"] for task in tasks().values() if "request_set" in task.metadata} == set(SETS)


def test_tasks(
    request_copies: Copies, tiny_chat_model: Callable[..., Path], evaluate: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(JUDGES_VARIABLE, json.dumps(["keywords"]))
    names = {name: task for name, task in tasks().items() if "request_set" in task.metadata}
    copies = {SETS[name].key: str(path) for name, path in request_copies.items()}
    result = evaluate(tiny_chat_model(), list(names), copies, gen_kwargs={"max_gen_toks": 2}, limit=2)
    for name, task in names.items():
        assert result["n-samples"][name] == {"original": ASKED[task.metadata["request_set"]], "effective": 2}
        assert isinstance(result["results"][name][f"{task.metric},judged"], float)
        assert [sample["doc"]["row"] for sample in result["samples"][name]] in ([0, 1], [1, 3])
