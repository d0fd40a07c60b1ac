"""Progress where there is no terminal: lines at the start, at the end, and never a long silence."""

import io
import time

import pytest
from rich.console import Console
from safebasin.harness.terminal.progress import _Lines, bars


class Clock:
    """Seconds, as they are set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written() -> list[str]:
    return []


@pytest.fixture
def lines(clock: Clock, written: list[str]) -> _Lines:
    return _Lines(written.append, 30.0, clock)


def test_a_piece_of_work_is_told_when_it_begins_and_ends(lines: _Lines, clock: Clock, written: list[str]) -> None:
    for done in range(5):
        clock.now = 5.0 * done
        lines.update("training", done, 4)
    lines.update("training", 4, 4)
    assert written == ["training: 4 to do", "training: 4 of 4, 20 s"]


def test_long_work_is_told_every_half_minute_with_the_time_left(
    lines: _Lines, clock: Clock, written: list[str]
) -> None:
    """Steps that were done before take no part in the pace."""
    for minute, done in enumerate((100, 110, 120)):
        clock.now = 60.0 * minute
        lines.update("answers", done, 200)
    assert written == [
        "answers: 200 to do, 100 done before",
        "answers: 110 of 200, 1 min 0 s, about 9 min 0 s left",
        "answers: 120 of 200, 2 min 0 s, about 8 min 0 s left",
    ]


def test_silence_between_steps_is_broken_too(lines: _Lines, clock: Clock, written: list[str]) -> None:
    lines.beat()
    lines.update("restoring", 0, 2)
    for now in (10.0, 29.0, 31.0, 40.0, 61.0):
        clock.now = now
        lines.beat()
    assert written == ["restoring: 2 to do", "restoring: 0 of 2, 31 s", "restoring: 0 of 2, 1 min 1 s"]
    lines.update("restoring", 2, 2)
    clock.now = 200.0
    lines.beat()
    assert written[3:] == ["restoring: 2 of 2, 1 min 1 s"]


def test_one_step_that_takes_long_is_told_while_it_lasts() -> None:
    out = io.StringIO()
    with bars(Console(file=out, width=80), silence=0.05) as shown:
        shown.update("loading", 0, 1)
        begun = time.monotonic()
        while out.getvalue().count("\n") < 3 and time.monotonic() - begun < 30:
            time.sleep(0.01)
        shown.say("a line between")
        shown.update("loading", 1, 1)
    first, *between, said, last = out.getvalue().splitlines()
    assert (first, said) == ("loading: 1 to do", "a line between")
    assert between
    assert all(line.startswith("loading: 0 of 1, ") for line in between)
    assert last.startswith("loading: 1 of 1, ")


def test_a_terminal_has_bars_and_no_such_lines() -> None:
    out = io.StringIO()
    with bars(Console(file=out, width=80, force_terminal=True), silence=0.01) as shown:
        shown.update("training", 1, 2)
        shown.update("training", 2, 2)
    assert "training" in out.getvalue()
    assert "to do" not in out.getvalue()
