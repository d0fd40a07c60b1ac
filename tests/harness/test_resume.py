"""A run that is killed again and again ends as one that is not."""

import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from .conftest import ROOT, SAFEBASIN

SMALL = (
    "finetune.max_steps=12",
    "limit=24",
    "batch_size=4",
    "processes=2",
    "tasks.safety=[sandbox_hrr, sandbox_prefill, sandbox_overrefusal]",  # a sweep in batches of 4 takes minutes
    "methods=[base, lora, full, {curvature: {epsilon: 0.02}}]",
)
KILLS = 5


def work_done(folder: Path) -> int:
    """Responses and verdicts stored so far."""
    store = folder / "store.sqlite"
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as db:
            counted = db.execute("SELECT (SELECT COUNT(*) FROM responses) + (SELECT COUNT(*) FROM verdicts)")
            return int(counted.fetchone()[0])
    except sqlite3.OperationalError:  # its tables are just being made
        return 0


def responses(folder: Path) -> dict[str, str]:
    with sqlite3.connect(folder / "store.sqlite") as db:
        return dict(db.execute("SELECT key, answer FROM responses"))


def sessions(folder: Path) -> int:
    with sqlite3.connect(folder / "store.sqlite") as db:
        return int(db.execute("SELECT COUNT(DISTINCT session) FROM responses").fetchone()[0])


def start(folder: Path, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = [str(SAFEBASIN), "run", str(ROOT / "configs/sandbox.yaml"), *SMALL, "--output", str(folder)]
    quiet: Any = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True)


def kill_at(process: "subprocess.Popen[bytes]", folder: Path, moment: int) -> bool:
    """Kills the run as soon as it has stored `moment` rows; False if it ended first."""
    while process.poll() is None:
        if work_done(folder) >= moment:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)  # a poll of the store, not a wait for something to settle
    return False


@pytest.mark.usefixtures("world")
def test_killed_five_times_ends_with_the_same_leaderboard(tmp_path: Path, environment: dict[str, str]) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert start(whole, environment).wait() == 0
    draw = random.Random(5)
    moments = sorted(draw.randrange(work_done(whole)) for _ in range(KILLS))
    killed = [kill_at(start(broken, environment), broken, moment) for moment in moments]
    assert all(killed)
    assert start(broken, environment).wait() == 0

    timings = ["minutes", "peak_gb"]
    one, other = (pd.read_csv(folder / "leaderboard.csv").drop(columns=timings) for folder in (whole, broken))
    pd.testing.assert_frame_equal(one, other)
    assert responses(broken) == responses(whole)  # the same keys: nothing was made anew under another one
    assert sessions(broken) > 1
    assert sessions(whole) == 1
