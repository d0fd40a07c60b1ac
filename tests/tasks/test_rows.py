"""Rows as people have them: every format and shape, what is said of them, and what is refused and why."""

import codecs
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.tasks.rows.reader import is_hub, read_columns, read_rows

ROWS = [{"prompt": "ask, 1", "response": 'say "1"\nand é'}, {"prompt": "ask 2", "response": "say 2"}]
BOTH = ("prompt", "response")
Given = Callable[..., str]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    """Writes a file, whose rows are objects in lines unless it is text or bytes, and returns its path."""

    def write(content: Any, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        text = content if isinstance(content, str | bytes) else "\n".join(json.dumps(row) for row in content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


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


def refusal(source: str, needs: tuple[str, ...] = BOTH, columns: Any = None) -> str:
    with pytest.raises(InputError) as error:
        read_rows(source, needs, columns)
    assert source in str(error.value)
    return str(error.value)


GOOD = '{"prompt": "a", "response": "b"}'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.jsonl", "", "holds no rows"),
        ("rows.csv", "prompt,response\n", "holds no rows"),
        ("rows.json", "[]", "holds no rows"),
        ("rows.json", '{\n"data": [1]\n}', "holds one object"),
        ("rows.json", f"[{GOOD},\n{{]", "line 2: not JSON"),
        ("rows.txt", "x", "must end in one of .jsonl, .json"),
        ("rows.parquet", "PAR1", "cannot be read as Parquet"),
        ("rows.jsonl.gz", "x", "cannot be read: Not a gzipped file"),
        ("rows.jsonl.gz", gzip.compress(GOOD.encode())[:-9], "cannot be read"),
        ("rows.jsonl", "version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        ("rows.csv", b"prompt,response\na,b\n\xe9,c\n", "line 3: byte 0xe9 is no UTF-8. Save it as UTF-8"),
        ("rows.csv", "prompt,response,Prompt\na,b,c\n", "two columns 'Prompt'"),
        ("rows.jsonl", '{"prompt": "a", "prompt": "b", "response": "c"}', "'prompt' stands twice in one row"),
        ("rows.jsonl", '{"question": "a", "answer": "b"}', "its columns are question, answer"),
        ("rows.jsonl", '{"prompt": "a"}', "no column for response"),
        ("rows.jsonl", '{"prompt": "a", "instruction": "i", "response": "b"}', "in more than one way"),
        ("rows.jsonl", '{"instruction": "i", "input": "n", "response": "b"}', "in more than one way"),
        ("rows.jsonl", '{"prompt": "a", "messages": "b", "response": "c"}', "in more than one way"),
        ("rows.jsonl", f'{GOOD}\n{{"instruction": "i", "output": "o"}}\n{GOOD}', "line 2: Alpaca, not prompt/response"),
        ("rows.jsonl", f'{GOOD}\n{{"messages": [{{}}]}}', "line 2: messages, not prompt/response"),
        ("rows.jsonl", f'{GOOD}\n[1]\n{GOOD}', "line 2: [1] is no row"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_a_whole(given: Given, name: str, content: Any, said: str) -> None:
    assert said in refusal(given(content, name))


def test_a_file_that_is_not_there() -> None:
    assert refusal("none/rows.csv") == "There is no file 'none/rows.csv'."
    assert "neither a file of rows" in refusal("rows")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": " \n", "response": "b"}, "prompt is empty"),
        ({"prompt": "a"}, "response is absent"),
        ({"prompt": "a", "response": None}, "response is absent"),
        ({"prompt": "a", "response": ""}, "response is empty"),
        ({"prompt": 3, "response": "b"}, "prompt is a number (3), not text"),
        ({"prompt": "a", "response": ["b"]}, "response is a list (['b']), not text"),
        ({"prompt": "a", "response": True}, "response is true or false (True), not text"),
        ({"prompt": "a", "response": "b", "target": {"x": 1}}, "target is an object"),
        ({"prompt": "a", "response": "b", "before": "x"}, "before is str (x), not a list"),
    ],
)
def test_faulty_rows_are_named(given: Given, row: dict[str, Any], said: str) -> None:
    good = json.loads(GOOD)
    message = refusal(given([good, row, good]))
    assert "1 of 3 rows cannot be used" in message
    assert f"line 2: {said}" in message


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([USER], "no turn of the assistant"),
        ([SYSTEM, ANSWER], "the last turn before the answer is not the user's"),
        ([ANSWER], "the last turn before the answer is not the user's"),
        ([USER, {"role": "tool", "content": "x"}, ANSWER], "turn 2 of messages is of the role 'tool'"),
        ([USER, {"role": "assistant", "content": None}], "turn 2 of messages holds NoneType"),
        ([USER, {"role": "assistant", "content": "a", "tool_calls": [1]}], "a call of tools"),
        ([USER, {"role": "assistant", "content": " "}], "turn 2 of messages (assistant) is empty"),
        ([USER, {"role": "assistant", "content": [{"type": "image"}]}], "turn 2 of messages holds a list"),
        ([USER, "x"], "turn 2 of messages has neither role and content nor from and value"),
        ({"a": 1}, "messages is an object"),
    ],
)
def test_conversations_that_cannot_be_used(given: Given, turns: Any, said: str) -> None:
    assert said in refusal(given([{"messages": [USER, ANSWER]}, {"messages": turns}]))


def test_two_system_messages(given: Given) -> None:
    assert "two system messages" in refusal(given([{"messages": [SYSTEM, USER, ANSWER], "system": "s"}]))


def test_all_faulty_rows_are_named_at_once_in_their_order(given: Given) -> None:
    lines = [GOOD, '{"prompt": ', '{"prompt": "", "response": "b"}', GOOD, '{"prompt": "c"}', *['{"prompt": 1}'] * 20]
    message = refusal(given("\n".join(lines)))
    assert "23 of 25 rows cannot be used" in message
    places = [line.split(":")[0].strip() for line in message.splitlines()[1:-1]]
    assert places == [f"line {n}" for n in (2, 3, 5, 6, 7, 8, 9, 10)]
    assert message.splitlines()[-1].strip() == "… and 15 more"
    assert 'not JSON (Expecting value, column 12): {"prompt":' in message


def test_faulty_lines_of_a_csv(given: Given) -> None:
    text = 'prompt,response\n"a\nb",c\nd,e,f\ng\n\n"h" i,j\nk,\n'
    message = refusal(given(text, "rows.csv"))
    for said in (
        "line 4: 3 cells for 2 columns (text with a ',' needs quotes): d,e,f",
        "line 5: 1 cells for 2 columns",
        "line 7: not CSV",
        "line 8: response is empty",
    ):
        assert said in message
    assert "4 of 5 rows" in message
    assert "line 2: not CSV" in refusal(given('prompt,response\n"a,b\nc,d\n', "rows.csv"))


def test_a_long_text_in_a_csv(given: Given) -> None:
    long = "x" * 200_000
    assert read_rows(given(f"prompt,response\na,{long}\n", "rows.csv"), BOTH).rows[0]["response"] == long


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"prompt": "qestion"}, "has no column 'qestion', named as prompt. Did you mean 'question'"),
        ({"promt": "question"}, "a column cannot be 'promt'. Did you mean 'prompt'"),
        ({"prompt": "question"}, "no column for response"),
    ],
)
def test_a_map_that_does_not_fit(given: Given, columns: dict[str, str], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_rows(given([{"question": "q", "answer": "a"}]), BOTH, columns)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "prompt", "prompt=", "=a", "prompt=a,,"])
def test_a_map_of_another_form(text: str) -> None:
    with pytest.raises(InputError, match="is not of the form ROLE=COLUMN"):
        read_columns(text)


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
