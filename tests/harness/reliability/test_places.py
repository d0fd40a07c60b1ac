"""Places that cannot be written to, and models that are no models: one message each, and what can be read is read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.config.load import load_config
from safebasin.harness.config.model import RunConfig
from safebasin.harness.sandbox import build as sandbox
from safebasin.harness.sandbox.build import build_world
from safebasin.harness.stages.report import report
from safebasin.harness.store.files import finished_folder, locked, make_folder
from safebasin.harness.store.store import Store
from safebasin.results.html.library import chart_library
from safebasin.tasks.sandbox.location import KINDS, world_folder

from ...conftest import TinyChatModel
from .conftest import ran


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A folder that nobody can make or write to, root neither: its parent is a file."""
    (tmp_path / "file").write_text("content")
    return tmp_path / "file" / "folder"


@pytest.fixture
def no_cache(unwritable: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAFEBASIN_CACHE", str(unwritable))
    return unwritable


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as told:
        call()
    return str(told.value)


def enter(context: object) -> None:
    with context:  # type: ignore[attr-defined]
        pass


def test_a_cache_that_cannot_be_written_to_is_named_with_its_variable(no_cache: Path) -> None:
    for call in (
        lambda: build_world(0),
        lambda: enter(finished_folder(no_cache / "aligned" / "0123")),
        lambda: enter(locked(no_cache, wait=False)),
    ):
        said = refused(call)
        assert str(no_cache) in said
        assert "set SAFEBASIN_CACHE to a folder that can be written to" in said
        assert "--output" not in said


def test_a_world_that_is_whole_is_used_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path("/proc/none") / "cache"
    monkeypatch.setenv("SAFEBASIN_CACHE", str(whole))
    there = {world_folder(0) / name / "config.json" for name in KINDS}
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: path in there or is_file(path))
    monkeypatch.setattr(sandbox, "make_folder", lambda folder: pytest.fail("it was to be written to"))
    assert build_world(0) == world_folder(0)


def test_a_report_needs_no_cache(copy: Path, no_cache: Path) -> None:
    report(copy, Console(quiet=True))
    assert "vegaEmbed" in (copy / "report.html").read_text(encoding="utf-8")
    assert "vegaEmbed" in chart_library(no_cache)


def test_an_output_that_cannot_be_written_to_is_told(
    given: RunConfig, copy: Path, unwritable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(lambda: ran(given, unwritable)) == (
        f"Cannot write to the folder {unwritable}: Not a directory. Choose another --output."
    )
    assert "Choose another --output or --store" in refused(lambda: Store(unwritable / "store.sqlite"))
    for words in (
        ["report", str(copy), "--output", str(unwritable)],
        ["review", "export", str(copy), "--output", str(unwritable / "sheet.html")],
        ["export", str(copy), "--format", "latex", "--output", str(unwritable / "table.tex")],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = capsys.readouterr().err
        assert ended.value.code == 2, said
        assert said.startswith("Error: ")
        assert str(unwritable) in " ".join(said.split())
        assert "Traceback" not in said


def test_a_folder_that_is_read_only_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a disk that is mounted read-only says it."""

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    assert refused(lambda: make_folder(tmp_path)) == (
        f"Cannot write to the folder {tmp_path}: Read-only file system. Choose another --output."
    )


ODD = (
    *(".", "..", "/", "//", "./", "...", " ", "a//b", "a/b/c", "a\0b", "\n", "~", "-", "--help", "a" * 300, "*", "[x]"),
    *("é\u202e", "x.gguf", "COM1:", "\ud800"),
)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_model_is_told_or_taken_for_a_hub_id(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"models": [name], "methods": ["base"], "tasks": {"safety": []}, "finetune": {"dataset": "sandbox_task"}}
    Path("run.yaml").write_text(json.dumps(config))
    told = ""
    try:
        load_config("run.yaml")
    except InputError as error:
        told = str(error)
    if name.startswith((".", "/")) or name.count("/") > 1 or name.endswith(".gguf") or len(name) > 255:
        assert "models.0: " in told or "File name too long" in told


def test_a_model_in_the_working_folder_is_run_as_a_dot(
    given: RunConfig, tiny_chat_model: TinyChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_chat_model())
    config = given.model_copy(
        update={"models": (given.models[0].model_copy(update={"id": "."}),), "methods": given.methods[:1]}
    )
    result, said = ran(config, tmp_path / "run")
    assert result.failures == {}, said
    assert [path.resolve() for path in (tmp_path / "run" / "models").iterdir()] == [tiny_chat_model().resolve()]
