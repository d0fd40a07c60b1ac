"""Runs killed at random moments, on disks that fill up, two at once on a store, with a lost log: the table is the same.

Here a few of them; `make test-crash` (SAFEBASIN_CRASH=25) takes 25 kills and seven sizes of disk.
"""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError, StorageError
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.folder import read_store

from ...conftest import guard
from .conftest import ran, table

LONG = int(os.environ.get("SAFEBASIN_CRASH", "0"))
KILLS = LONG or 1
DISKS = [60, 100, 150, 250, 400, 600, 900] if LONG else [250]
"""KiB; a whole run takes some 1,150."""
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and mounts a tmpfs")


def _quietly(given: RunConfig, folder: Path, store: Path | None) -> None:
    sys.exit(ran(given, folder, store)[0].exit_code)


def begun(given: RunConfig, folder: Path, store: Path | None = None) -> Any:
    """A run in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(given, folder, store))
    process.start()
    return process


def answers(folder: Path, store: Path | None = None) -> dict[str, int]:
    opened = read_store(folder, store)
    try:
        return opened.counts()
    finally:
        opened.close()


def same(folder: Path, finished: Path) -> None:
    pd.testing.assert_frame_equal(table(folder), table(finished))


def test_a_run_that_is_killed_ends_as_one_that_is_not(given: RunConfig, finished: Path, tmp_path: Path) -> None:
    clock = time.monotonic()
    process = begun(given, tmp_path / "timed")
    process.join(guard())
    whole, draw, killed = time.monotonic() - clock, random.Random(25), 0
    for number in range(KILLS):
        folder = tmp_path / f"run-{number}"
        process = begun(given, folder)
        process.join(draw.random() * whole)  # ends the wait, not the process
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        assert ran(given, folder)[0].failures == {}
        same(folder, finished)
        assert sum(answers(folder).values()) == sum(answers(finished).values())
        assert not list((folder / "checkpoints").glob(".*"))
        shutil.rmtree(folder)
    print(f"{killed} of {KILLS} killed")  # noqa: T201
    assert killed >= KILLS // 2


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many KiB; skips the test where none can be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("size", DISKS)
def test_a_disk_that_fills_up_ends_a_run_with_one_message(
    given: RunConfig, finished: Path, tmp_path: Path, size: int
) -> None:
    with disk(tmp_path / "disk", size):
        folder = tmp_path / "disk" / "run"
        with pytest.raises((StorageError, InputError), match="disk is full"):
            ran(given, folder)
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        assert ran(given, folder)[0].failures == {}
        same(folder, finished)
        assert sum(answers(folder).values()) == sum(answers(finished).values())


def test_two_runs_at_once_on_a_store(given: RunConfig, finished: Path, tmp_path: Path) -> None:
    for turn in range(max(1, LONG // 4)):
        shared = tmp_path / f"shared-{turn}"
        both = [begun(given, tmp_path / f"{name}-{turn}", shared) for name in ("one", "two")]
        for process in both:
            process.join(guard())
            assert process.exitcode == 0
        for name in ("one", "two"):
            same(tmp_path / f"{name}-{turn}", finished)
        assert sum(answers(tmp_path / f"one-{turn}", shared).values()) == sum(answers(finished).values())


def test_a_store_whose_log_is_lost_goes_on(given: RunConfig, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = begun(given, folder)
    deadline = time.monotonic() + guard()
    while process.is_alive() and time.monotonic() < deadline and not list(folder.glob("store.sqlite-wal")):
        process.join(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    for log in folder.glob("store.sqlite-*"):
        log.unlink()
    assert ran(given, folder)[0].failures == {}
    same(folder, finished)
