"""A config written for one's own model is one that a run takes, says what each key is for, and replaces nothing."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from safebasin.errors import InputError
from safebasin.harness.commands import init
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.init import Wanted, config_text, write_config
from safebasin.harness.config.load import load_config


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f'{{"prompt": "ask {i}", "response": "say {i}"}}\n' for i in range(20))
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "advbench.csv").write_text("goal,target\na,b\n")
    (tmp_path / "xstest.csv").write_text("id,prompt\n1,a\n")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")
    return tmp_path


ADVBENCH, ROWS = "advbench.csv", "rows.jsonl"
REPAIRS = ("curvature", "safety_sft")


@pytest.mark.parametrize(
    ("wanted", "methods", "tasks"),
    [
        (Wanted("sandbox"), ("lora", *REPAIRS), "sandbox_hrr"),
        (Wanted("sandbox:3", restore=False), ("lora",), "sandbox_hrr"),
        (Wanted("own/base", Path("adapter"), ROWS, ADVBENCH), ("lora", *REPAIRS), "advbench_hrr"),
        (Wanted("own/base", Path("adapter"), None, ADVBENCH, restore=False), ("lora",), "advbench_hrr"),
        (Wanted("own/base", Path("whole"), ROWS, "hub", "xstest.csv"), ("full", *REPAIRS), "xstest_safe"),
        (Wanted("t: y", None, ROWS, None, "hub", guard="own/guard", limit=None), ("lora", *REPAIRS), "xstest_unsafe"),
    ],
)  # fmt: skip
def test_a_run_takes_it(files: Path, wanted: Wanted, methods: tuple[str, ...], tasks: str) -> None:
    write_config(wanted, Path("own.yaml"))
    config = load_config(Path("own.yaml"))
    assert config.labels == ("base", *methods)
    assert tasks in config.tasks.safety
    assert (config.models[0].id, config.limit) == (wanted.model, wanted.limit)
    first = next(iter(config.judges[0]))
    assert first == ("llama_guard" if wanted.guard else "compliance")
    given = [spec.settings.get("adapter") or spec.settings.get("model") for spec in config.methods]
    assert ([str(wanted.tuned)] if wanted.tuned else []) == [folder for folder in given if folder]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted("own/base", None, None, ADVBENCH), "Give what was fine-tuned"),
        (Wanted("own/base", Path("adapter"), None, ADVBENCH), "give rows of the task"),
        (Wanted("own/base", Path("adapter"), ROWS), "Give requests to measure on"),
        (Wanted("own/base", Path("nothing"), ROWS, ADVBENCH), "'nothing' holds neither"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_written(files: Path, wanted: Wanted, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_config(wanted, Path("own.yaml"))
    assert not Path("own.yaml").exists()


def test_what_a_run_would_not_take_is_kept_and_told(files: Path) -> None:
    with pytest.raises(
        InputError, match=r"own.yaml is written, but a run would not take it yet(.|\n)*no file 'gone.csv'"
    ):
        write_config(Wanted("own/base", Path("adapter"), ROWS, "gone.csv"), Path("own.yaml"))
    assert "gone.csv" in Path("own.yaml").read_text()
    with pytest.raises(InputError, match="is there already"):
        write_config(Wanted("sandbox"), Path("own.yaml"))
    write_config(Wanted("sandbox"), Path("own.yaml"), overwrite=True)
    assert "sandbox_hrr" in Path("own.yaml").read_text()


def test_nothing_of_the_template_is_left_in_it(files: Path) -> None:
    text = config_text(Wanted("own/base", Path("adapter"), ROWS, ADVBENCH, "hub", guard="own/guard"), Path("own.yaml"))
    assert "{{" not in text
    assert "None" not in text
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 160


def test_without_a_terminal_the_model_must_be_given(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(init.sys, "stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(SystemExit, match="2"):
        main(["init", "own.yaml"])
    assert "--model is missing" in capsys.readouterr().err


def test_in_a_terminal_it_asks(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["own/base", "adapter", ROWS, ADVBENCH, "", "n"])
    monkeypatch.setattr(init.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("rich.console.Console.input", lambda *given, **settings: next(said))
    with pytest.raises(SystemExit, match="0"):
        main(["init", "own.yaml"])
    assert load_config(Path("own.yaml")).labels == ("base", "lora")
    assert not list(said)
