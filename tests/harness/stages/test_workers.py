"""Work in forked processes: results and failures come back, the parent is asked, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.harness.stages.workers import SMALL, in_processes, processes_for


def test_results_come_back_by_number_and_the_parent_is_asked() -> None:
    mine = {"a": 1, "b": 2, "c": 3}
    asked: list[tuple[str, str]] = []

    def answer(what: str, key: str) -> int:
        asked.append((what, key))
        return mine[key]

    done = dict(in_processes(lambda key, ask: (os.getpid(), 10 * ask("look up", key)), list("abc"), 2, answer))
    assert {number: value for number, (_, value) in done.items()} == {0: 10, 1: 20, 2: 30}
    assert os.getpid() not in {process for process, _ in done.values()}
    assert sorted(asked) == [("look up", key) for key in "abc"]


def test_failures_are_told_and_the_rest_goes_on() -> None:
    def work(item: int, ask: Any) -> int:
        if item == 0:
            raise InputError("mend the config")
        if item == 1:
            return int(1 / (item - 1))
        return int(ask(item))

    def refusing(item: int) -> int:
        if item == 2:
            raise OSError("the disk is full")
        return item

    done = dict(in_processes(work, range(4), 2, refusing))
    assert isinstance(done[0], InputError)
    assert str(done[0]) == "mend the config"
    assert isinstance(done[1], RuntimeError)
    assert "ZeroDivisionError" in done[1].__notes__[0]
    assert str(done[2]) == "the disk is full"
    assert done[3] == 3


def test_a_killed_process_costs_its_item_alone() -> None:
    def work(item: int, ask: Any) -> int:
        if item == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return item

    done = dict(in_processes(work, range(4), 1, lambda: None))
    assert isinstance(done[0], InputError)
    assert "was killed" in str(done[0])
    assert [done[i] for i in (1, 2, 3)] == [1, 2, 3]


PARENT = """
import os, sys, time
from safebasin.harness.stages.workers import in_processes
def work(item, ask):
    ask(os.getpid())
    time.sleep(600)
def tell(pid):
    with open(sys.argv[1], "a") as file:
        file.write(f"{pid}\\n")
list(in_processes(work, range(2), 2, tell))
"""


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(what: Any) -> None:
    end = time.monotonic() + 60
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    assert what()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.touch()
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(told)])
    until(lambda: len(told.read_text().splitlines()) == 2)
    workers = [int(line) for line in told.read_text().splitlines()]
    assert all(map(running, workers))
    parent.kill()
    parent.wait()
    until(lambda: not any(map(running, workers)))


@pytest.mark.parametrize(
    ("items", "asked", "weights", "device", "expected"),
    [
        (15, None, SMALL, "cpu", 2),
        (1, None, SMALL, "cpu", 1),
        (15, None, SMALL + 1, "cpu", 1),
        (15, None, None, "cpu", 1),
        (15, 4, SMALL + 1, "cpu", 4),
        (15, 4, 0, "cuda", 1),
        (0, 4, 0, "cpu", 1),
    ],
)
def test_how_many(
    items: int, asked: int | None, weights: int | None, device: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert processes_for(items, asked, weights, device) == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert processes_for(items, asked, weights, device) == 1
