"""Rows as people have them: every format and shape, what is said of them, and what is refused and why."""

import codecs
import gzip
import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.tasks.rows.reader import is_hub, read_rows

ROWS = [{"prompt": "ask, 1", "response": 'say "1"\nand é'}, {"prompt": "ask 2", "response": "say 2"}]
BOTH = ("prompt", "response")
Given = Callable[..., str]


def as_bytes(name: str) -> bytes:
    """The two rows in the format that a name ends in."""
    table = pd.DataFrame(ROWS)
    made: dict[str, Callable[[], bytes]] = {
        "json": lambda: json.dumps(ROWS, indent=1).encode(),
        "jsonl": lambda: "\n".join(json.dumps(row) for row in ROWS).encode(),
        "csv": lambda: table.to_csv(index=False).encode(),
        "tsv": lambda: table.to_csv(index=False, sep="\t").encode(),
        "parquet": lambda: table.to_parquet(index=False),
    }
    plain = name.lower().removesuffix(".gz")
    content = made[plain.rpartition(".")[2]]()
    return gzip.compress(content) if name.lower().endswith(".gz") else content


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv", "tsv", "parquet"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("change", [str, str.upper])
def test_every_format_gives_the_same_rows(given: Given, ending: str, suffix: str, change: Any) -> None:
    name = f"rows.{change(ending + suffix)}"
    assert read_rows(given(as_bytes(name), name), BOTH).rows == ROWS


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-16-le", b""),
        ("utf-16-be", b""),
        ("utf-32-le", codecs.BOM_UTF32_LE),
    ],
)
def test_encodings_are_detected(given: Given, ending: str, encoding: str, mark: bytes) -> None:
    content = mark + as_bytes(f"rows.{ending}").decode().encode(encoding)
    assert read_rows(given(content, f"rows.{ending}"), BOTH).rows == ROWS


@pytest.mark.parametrize("ending", ["json", "jsonl", "csv"])
def test_line_ends_of_windows(given: Given, ending: str) -> None:
    content = as_bytes(f"rows.{ending}").replace(b"\n", b"\r\n")
    rows = read_rows(given(content, f"rows.{ending}"), BOTH).rows
    assert [row["response"].replace("\r\n", "\n") for row in rows] == [row["response"] for row in ROWS]


def test_lists_and_lines_are_told_by_what_is_in_them(given: Given) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS)
    assert read_rows(given(lines, "rows.json"), BOTH).rows == ROWS
    assert read_rows(given(json.dumps(ROWS), "rows.jsonl"), BOTH).rows == ROWS


def test_a_csv_of_excel_in_europe(given: Given) -> None:
    assert read_rows(given("prompt;response\na, b;c\n", "rows.csv"), BOTH).rows == [{"prompt": "a, b", "response": "c"}]


@pytest.mark.parametrize(
    "name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"]
)  # fmt: skip
def test_a_missing_value_is_absent(given: Given, name: str) -> None:
    rows = [{"prompt": "a", "target": "t"}, {"prompt": "b", "target": None}, {"prompt": "NaN", "refusal": "no"}]
    table = pd.DataFrame(rows)
    content = {
        "rows.jsonl": lambda: "\n".join(json.dumps(row) for row in table.to_dict("records")),  # with the literal NaN
        "rows.json": lambda: json.dumps(rows),
        "rows.csv": lambda: table.to_csv(index=False),
        "rows.parquet": lambda: table.assign(refusal=[float("nan")] * 3).to_parquet(),
    }[name]()
    rows[1].pop("target")
    if name == "rows.parquet":
        rows[2].pop("refusal")
    assert read_rows(given(content, name)).rows == rows


SYSTEM, USER, ANSWER = ({"role": r, "content": r} for r in ("system", "user", "assistant"))
SHAPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("prompt/response", {"prompt": "p", "response": "r", "target": "t", "refusal": "f"}, {}),
    ("prompt/completion", {"Prompt": "p", "Completion": "r"}, {"prompt": "p", "response": "r"}),
    ("Alpaca", {"instruction": "i", "input": "n", "output": "o"}, {"prompt": "i\n\nn", "response": "o"}),
    ("Alpaca", {"instruction": "i", "input": "", "output": "o", "text": "x"}, {"prompt": "i", "response": "o"}),
    (
        "Alpaca",
        {"instruction": "i", "output": "o", "system": "s", "history": [["a", "b"]]},
        {
            "prompt": "i",
            "response": "o",
            "before": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
            ],
        },
    ),
    (
        "Dolly",
        {"instruction": "i", "context": "c", "response": "r", "category": "x"},
        {"prompt": "i\n\nc", "response": "r"},
    ),
    ("messages", {"messages": [USER, ANSWER]}, {"prompt": "user", "response": "assistant"}),
    (
        "messages",
        {"messages": [SYSTEM, USER, ANSWER], "prompt": "user"},
        {"prompt": "user", "response": "assistant", "before": [SYSTEM]},
    ),
    (
        "messages",
        {"messages": [USER, ANSWER, USER, ANSWER], "system": "system"},
        {"prompt": "user", "response": "assistant", "before": [SYSTEM, USER, ANSWER]},
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}, ANSWER, USER]},
        {"prompt": "p", "response": "assistant"},
    ),
    (
        "messages",
        {"messages": [{"role": "developer", "content": "system"}, USER, {**ANSWER, "reasoning_content": "why"}]},
        {"prompt": "user", "response": "<think>\nwhy\n</think>\n\nassistant", "before": [SYSTEM]},
    ),
    ("messages", {"messages": [USER, {**ANSWER, "thinking": None}]}, {"prompt": "user", "response": "assistant"}),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "p"}]},
                {
                    "role": "assistant",
                    "content": [{"type": "thinking", "thinking": "why"}, {"type": "text", "text": "r"}],
                },
            ]
        },
        {"prompt": "p", "response": "<think>\nwhy\n</think>\n\nr"},
    ),
    ("conversation", {"conversation": [USER, ANSWER]}, {"prompt": "user", "response": "assistant"}),
    (
        "prompt/completion",
        {"prompt": [SYSTEM, USER], "completion": [ANSWER]},
        {"prompt": "user", "response": "assistant", "before": [SYSTEM]},
    ),
    ("prompt/response", {"prompt": [USER], "response": "r"}, {"prompt": "user", "response": "r"}),
    (
        "ShareGPT",
        {
            "conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "h"},
                {"from": "gpt", "value": "g"},
            ]
        },
        {"prompt": "h", "response": "g", "before": [{"role": "system", "content": "s"}]},
    ),
]
HARMFUL: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("AdvBench", {"goal": "g", "target": "t"}, {"prompt": "g", "target": "t"}),
    (
        "JailbreakBench",
        {"Index": 1, "Goal": "g", "Target": "t", "Behavior": "b", "Category": "c", "Source": "s"},
        {"prompt": "g", "target": "t"},
    ),
    ("HarmBench", {"Behavior": "b", "SemanticCategory": "s", "BehaviorID": "i"}, {"prompt": "b"}),
    ("HarmBench", {"Behavior": "b", "ContextString": "c"}, {"prompt": "c\n\n---\n\nb"}),
    ("StrongREJECT", {"category": "c", "source": "s", "forbidden_prompt": "f"}, {"prompt": "f"}),
    ("messages", {"messages": [SYSTEM, USER]}, {"prompt": "user", "before": [SYSTEM]}),
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
@pytest.mark.parametrize(("shape", "row", "wanted"), [*SHAPES, *HARMFUL])
def test_shapes_are_told_by_their_columns(
    given: Given, name: str, shape: str, row: dict[str, Any], wanted: dict[str, Any]
) -> None:
    if name == "rows.parquet" and any(isinstance(t.get("content"), list) for t in row.get("messages", [])):
        pytest.skip("a column of Parquet has one type")
    content = (
        pd.DataFrame([row]).to_parquet() if name == "rows.parquet" else json.dumps([row] if name[5:] == "json" else row)
    )
    read = read_rows(given(content, name), BOTH if (shape, row, wanted) in SHAPES else ("prompt",))
    assert read.rows == [wanted or row]
    assert f"shape {shape}" in read.said


def test_what_was_read_is_said_in_a_line(given: Given) -> None:
    source = given([{"Instruction": "i", "output": "o", "id": 7}])
    assert read_rows(source, BOTH).said == (
        f"{source}: 1 rows, shape Alpaca: Instruction as prompt, output as response; not read: id"
    )


def test_conversations_in_the_cells_of_a_csv(given: Given) -> None:
    content = pd.DataFrame({"messages": [json.dumps([SYSTEM, USER, ANSWER])]}).to_csv(index=False)
    assert read_rows(given(content, "rows.csv"), BOTH).rows == [
        {"prompt": "user", "response": "assistant", "before": [SYSTEM]}
    ]


@pytest.mark.parametrize(
    ("columns", "row", "wanted"),
    [
        ({"prompt": "question", "response": "answer"}, {"Question": "q", "answer": "a"},
         {"prompt": "q", "response": "a"}),
        ({"prompt": "question"}, {"question": "q", "response": "a"}, {"prompt": "q", "response": "a"}),
        ({"response": "output"}, {"prompt": "p", "output": "o"}, {"prompt": "p", "response": "o"}),
        ({"refusal": "safe"}, {"instruction": "i", "input": "n", "output": "o", "safe": "s"},
         {"prompt": "i\n\nn", "response": "o", "refusal": "s"}),
        ({"messages": "dialogue"}, {"dialogue": [USER, ANSWER]}, {"prompt": "user", "response": "assistant"}),
    ],
)  # fmt: skip
def test_a_map_of_columns(given: Given, columns: dict[str, str], row: Any, wanted: Any) -> None:
    assert read_rows(given([row]), BOTH, columns).rows == [wanted]


def test_data_sets_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, revision: str, split: str) -> Any:
        asked.append((name, config, revision, split))
        return datasets.Dataset.from_list([{"goal": "g", "target": None}, {"goal": "h", "target": "t"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_rows("owner/name:train").rows == [{"prompt": "g"}, {"prompt": "h", "target": "t"}]
    read_rows("owner/name@abc123:config:test")
    assert asked == [("owner/name", None, "main", "train"), ("owner/name", "config", "abc123", "test")]
    assert [is_hub(name) for name in ("owner/name:train", "owner/name", "a/b.csv", "name:train")] == [
        True, False, False, False
    ]  # fmt: skip


def test_a_data_set_on_the_hub_while_offline() -> None:
    message = refusal_of_hub("nobody-at-all/nothing:train")
    assert "The data set nobody-at-all/nothing (at main) cannot be loaded" in message
    assert "Or download it, and give the path of the file." in message


def refusal_of_hub(source: str) -> str:
    with pytest.raises(InputError) as error:
        read_rows(source)
    return str(error.value)


LABELLED = (*BOTH, "harmful")


@pytest.mark.parametrize("word", [True, 1, 1.0, "true", " Yes", "HARMFUL", "unsafe"])
def test_labels_are_read_as_people_write_them(given: Given, word: Any) -> None:
    rows = [{"prompt": "p", "response": "r", "harmful": word}, {"prompt": "p", "response": "r", "harmful": "no"}]
    read = read_rows(given("\n".join(json.dumps(row) for row in rows)), LABELLED)
    assert [row["harmful"] for row in read.rows] == [True, False]
    assert "harmful" in read.said


def test_labels_are_read_only_where_they_are_needed(given: Given) -> None:
    path = given(json.dumps([{"prompt": "p", "response": "r", "harmful": "perhaps"}]))
    assert read_rows(path, BOTH).rows == [{"prompt": "p", "response": "r"}]
    with pytest.raises(InputError, match=r"row 1: harmful is 'perhaps', neither of true, yes"):
        read_rows(path, LABELLED)


def test_a_column_of_labels_can_be_named(given: Given) -> None:
    chat = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    path = given(json.dumps([{"messages": chat, "label": 0}]))
    assert read_rows(path, LABELLED, {"harmful": "label"}).rows == [{"prompt": "p", "response": "r", "harmful": False}]
    with pytest.raises(InputError, match=r"no column for harmful: .* --columns harmful=COLUMN"):
        read_rows(path, LABELLED)
    empty = given(json.dumps([{"messages": chat, "label": None}, {"messages": chat, "label": 1}]))
    with pytest.raises(InputError, match=r"row 1: label is absent, null or empty"):
        read_rows(empty, LABELLED, {"harmful": "label"})


@pytest.mark.parametrize(
    ("part", "prompts"),
    [("[:1]", ["ask, 1"]), ("[1:]", ["ask 2"]), ("[0:2]", ["ask, 1", "ask 2"]), ("[:9]", ["ask, 1", "ask 2"])],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv.gz"])
def test_a_part_of_a_file(given: Given, name: str, part: str, prompts: list[str]) -> None:
    read = read_rows(given(as_bytes(name), name) + part, BOTH)
    assert [row["prompt"] for row in read.rows] == prompts
    assert f"{part}: {len(prompts)} rows" in read.said


def test_an_empty_part_of_a_file_is_told(given: Given) -> None:
    with pytest.raises(InputError, match=r"\[2:\]' holds no rows: the file has 2"):
        read_rows(given(as_bytes("rows.csv"), "rows.csv") + "[2:]", BOTH)
