"""`safebasin restore` from files of rows: what is read, and what is said of them before a model is loaded."""

import json
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.frontier import SANDBOX, frontier_config
from safebasin.harness.commands.restoring import columns_of_both


def test_columns_of_both_files_and_of_one() -> None:
    given = ["prompt=q,response=a,refusal=no", "forget.prompt=request"]
    assert columns_of_both(given) == {
        "forget": {"prompt": "request", "refusal": "no"},
        "retain": {"prompt": "q", "response": "a"},
    }
    with pytest.raises(InputError, match="a column cannot be 'promt'"):
        columns_of_both(["retain.promt=q"])


def test_rows_are_checked_before_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forget, retain = tmp_path / "f.csv", tmp_path / "r.jsonl"
    forget.write_text("Goal,Target\nask,sure\n")
    retain.write_text('{"q": "a", "a": ""}\n{"q": 1, "a": "b"}')
    command = ["restore", "--base", "none", "--adapter", "none", "--forget", str(forget), "--retain", str(retain)]
    command += ["--output", str(tmp_path / "out"), "--columns", "retain.prompt=q,retain.response=a"]
    with pytest.raises(SystemExit) as stop:
        main(command)
    message = capsys.readouterr().err
    assert stop.value.code == 2
    for said in (
        f"'{retain}': 2 of 2 rows cannot be used",
        "line 1: a is empty",
        "line 2: q is a number (1), not text",
    ):
        assert said in message


def test_the_frontier_takes_the_same_rows(tmp_path: Path) -> None:
    forget, retain, adapter = tmp_path / "f.jsonl", tmp_path / "r.json", tmp_path / "adapter"
    forget.write_text('{"request": "ask"}')
    retain.write_text(json.dumps([{"instruction": "i", "output": "o"}] * 15))
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    columns = {"forget": {"prompt": "request"}, "retain": {}}
    config = frontier_config("sandbox", adapter, str(forget), str(retain), [0.1], {}, SANDBOX, 0, columns)
    assert config.data.safety_columns == {"prompt": "request"}
