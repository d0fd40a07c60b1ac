"""Rows that cannot be used: all of them are named at once, each with its place and what to do."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.tasks.rows.reader import read_columns, read_rows

BOTH = ("prompt", "response")
SYSTEM, USER, ANSWER = ({"role": r, "content": r} for r in ("system", "user", "assistant"))
Given = Callable[..., str]


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
        ("rows.jsonl.gz", gzip.compress(GOOD.encode(), mtime=0)[:-9], "cannot be read"),
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
