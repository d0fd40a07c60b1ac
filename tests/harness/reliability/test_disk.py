"""A full disk, stores that are gone or shared, locks that are not ours: one message each, and nothing is lost."""

import errno
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError, StorageError
from safebasin.harness.commands.cli import main
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages import build as build_stage
from safebasin.harness.stages.folder import open_store
from safebasin.harness.stages.report import report
from safebasin.harness.store.files import locked
from safebasin.harness.store.store import Store

from .conftest import ran, table


def full(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_of_words(*_: Any, **__: Any) -> Any:
    """As safetensors says it."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("place", "raises"),
    [
        ("a build", full_of_words),
        ("the store", full),
        ("the log of errors", full),
        ("leaderboard.csv", full),
        ("manifest.json", full),
    ],
)
def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    given: RunConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, raises: Any
) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        if place == "a build":
            patch.setattr(build_stage, "checkpoint_digest", raises)
        elif place == "the store":
            patch.setattr(Store, "add_answers", raises)
        elif place == "the log of errors":
            opened = Path.open
            patch.setattr(build_stage, "checkpoint_digest", lambda folder: 1 / 0)
            patch.setattr(
                Path,
                "open",
                lambda path, *how, **more: (full if path.name == "errors.log" else opened)(path, *how, **more),
            )
        else:
            replace = os.replace
            patch.setattr(os, "replace", lambda source, to: full() if Path(to).name == place else replace(source, to))
        with pytest.raises(StorageError, match=r"The disk is full.*run"):
            ran(given, folder)
    assert ran(given, folder)[0].failures == {}
    pd.testing.assert_frame_equal(table(folder), table(finished))


def test_a_store_that_cannot_grow_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.add_answers("generate_until", [("a", {}, "text")])
    store._db.execute("PRAGMA max_page_count=1")
    with pytest.raises(StorageError, match=r"The disk is full: the store .* cannot grow"):
        store.add_answers("generate_until", [(str(i), {}, "text" * 2000) for i in range(9)])
    assert store.answers(["a", "0"]) == {"a": "text"}


def test_the_command_line_ends_with_1_on_a_full_disk(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(copy)])
    assert ended.value.code == 1
    assert "Error: The disk is full" in capsys.readouterr().err


@pytest.mark.parametrize("gone", [True, False])
def test_a_lost_store_of_a_finished_run_is_not_made_anew_in_silence(given: RunConfig, copy: Path, gone: bool) -> None:
    store = copy / "store.sqlite"
    store.unlink() if gone else store.write_bytes(b"")
    with pytest.raises(InputError, match="is not there" if gone else "is empty"):
        ran(given, copy)
    with pytest.raises(InputError, match=r"no store|Nothing is in the store"):
        report(copy, Console(quiet=True))
    (copy / "manifest.json").unlink()
    assert ran(given, copy)[0].failures == {}


def test_a_report_makes_no_store(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no store .*--store"):
        report(copy, Console(quiet=True), tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_two_runs_on_one_store_end_alike(
    given: RunConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second begins when the first one has answered but not stored."""
    shared, add, second = tmp_path / "shared", Store.add_answers, []

    def later(self: Store, kind: str, rows: Any) -> None:
        if not second:
            second.append(1)
            assert ran(given, tmp_path / "two", shared)[0].failures == {}
        add(self, kind, rows)

    monkeypatch.setattr(Store, "add_answers", later)
    assert ran(given, tmp_path / "one", shared)[0].failures == {}
    for name in ("one", "two"):
        pd.testing.assert_frame_equal(table(tmp_path / name), table(finished))
    store = open_store(tmp_path / "one", shared)
    assert sum(store.counts().values()) == sum(open_store(finished, None).counts().values())
    store.close()


def test_a_lock_that_is_a_link_leaves_its_target_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="it is a link"), locked(tmp_path, wait=False):
        pass
    assert (tmp_path / "precious").read_text() == "content"


def test_a_run_that_cannot_be_written_to_is_reported_elsewhere(
    copy: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (mode == os.W_OK and Path(path) == copy) and access(path, mode)
    )
    with pytest.raises(SystemExit) as ended:
        main(["report", str(copy), "--output", str(tmp_path / "out")])
    assert not ended.value.code
    pd.testing.assert_frame_equal(table(tmp_path / "out"), table(finished))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before
