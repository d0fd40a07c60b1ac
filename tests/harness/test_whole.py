"""How far a whole run is: rates, time left over all stages, and what is not known."""

import io

import pytest
from rich.console import Console
from safebasin.harness.terminal.progress import _Lines, bars
from safebasin.harness.terminal.whole import Stage, Whole, told

from .test_progress import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def whole(clock: Clock) -> Whole:
    """Guesses are in another unit than seconds: they are ten times too small."""
    return Whole(
        [
            Stage("build", 2, "checkpoints", "", 10.0),
            Stage("answer", 4, "cells", "responses", 20.0),
            Stage("judge", 1, "judges", "verdicts", 5.0),
        ],
        clock,
    )


def test_before_anything_is_made_nothing_is_known(whole: Whole) -> None:
    whole.begin("build")
    assert whole.left[0] is None
    assert whole.line == (
        "whole run: build 0 of 2 checkpoints, answer 0 of 4 cells, judge 0 of 1 judges; time left not known yet"
    )
    assert whole.percent == 0


def test_guesses_are_scaled_by_what_was_seen(whole: Whole, clock: Clock) -> None:
    build = whole.begin("build")
    clock.now = 50.0
    build.settle(1)
    # one more of 50 s; answers and verdicts at ten seconds for each of their guess
    assert whole.left[0] == pytest.approx(50 + 200 + 50)
    assert whole.line.startswith("whole run: build 1 of 2 checkpoints (50 s each), answer 0 of 4")
    assert whole.line.endswith("; about 5 min 0 s left")
    assert whole.percent == 14


def test_a_unit_under_way_has_had_its_time(whole: Whole, clock: Clock) -> None:
    build = whole.begin("build")
    clock.now = 50.0
    build.settle(1)
    whole.tick()
    clock.now = 80.0
    assert whole.left[0] == pytest.approx(20 + 250)
    clock.now = 500.0
    assert whole.left[0] == pytest.approx(250), "late: it may end at any moment"


def test_a_stage_goes_on_at_its_own_pace(whole: Whole, clock: Clock) -> None:
    whole.begin("build")
    clock.now = 100.0
    answer = whole.begin("answer")
    answer.hear("lora: answer", 0, 100, 2)
    clock.now = 110.0
    answer.hear("lora: answer", 50, 100, 2)
    # one of four cells in 10 s; the judge at 110 s for a guess of 10 + 5
    assert whole.left[0] == pytest.approx(30 + 5 * 110 / 15)
    assert "answer 1 of 4 cells (5.0 responses/s)" in whole.line
    assert whole.short == "whole run, 5.0 responses/s, about 1 min 7 s left"
    whole.begin("judge")
    whole.end()
    assert whole.line.endswith("judge 1 of 1 judges; done")
    assert whole.percent == 100


def test_what_was_found_took_no_time(whole: Whole, clock: Clock) -> None:
    whole.begin("build").settle(2, found=2)
    answer = whole.begin("answer")
    answer.settle(2, found=2)
    answer.hear("a: answer", 30, 60, 2)  # half of it was in the store
    clock.now = 10.0
    answer.hear("a: answer", 45, 60, 2)
    assert answer.made == pytest.approx(0.5)
    assert whole.left[0] == pytest.approx(10.0 + 5 * 10 / 2.5)
    assert answer.rate == "1.5 responses/s"


def test_a_total_that_grows_makes_no_leap(whole: Whole) -> None:
    """lm-eval asks for texts first and for likelihoods then: the first job tells how much there is."""
    answer = whole.begin("answer")
    answer.hear("a: answer", 50, 50, 2)
    answer.hear("a: answer", 50, 100, 2)
    assert answer.reached == pytest.approx(1.0)
    answer.hear("b: answer", 50, 50, 2)
    assert answer.reached == pytest.approx(2.0)


def test_a_stage_without_a_guess_is_named(clock: Clock) -> None:
    whole = Whole([Stage("build", 2, "checkpoints", "", 1.0), Stage("judge", 1, "judges", "verdicts", None)], clock)
    whole.begin("build").settle(1)
    clock.now = 10.0
    assert whole.line.endswith("; about 10 s left, and what judge takes")


def test_stages_without_work_are_not_shown(clock: Clock) -> None:
    whole = Whole([Stage("build", 0, "checkpoints", "", None), Stage("answer", 1, "cells", "responses", 1.0)], clock)
    whole.begin("build")
    whole.begin("answer")
    assert whole.line.startswith("whole run: answer 0 of 1 cells; ")


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")])
def test_spans_of_time(seconds: float, text: str) -> None:
    assert told(seconds) == text


def test_in_a_pipe_it_stands_beside_what_is_told_every_half_minute(whole: Whole, clock: Clock) -> None:
    written: list[str] = []
    lines = _Lines(written.append, 30.0, clock)
    lines.whole = whole
    answer = whole.begin("answer")
    for now, done in ((0.0, 0), (10.0, 10), (40.0, 40)):
        clock.now = now
        answer.hear("a", done, 100, 4)
        lines.update("a", done, 100)
    assert written[:2] == ["a: 100 to do", "a: 40 of 100, 40 s, about 1 min 0 s left"]
    assert written[2].startswith("whole run: build 0 of 2 checkpoints, answer 1 of 4 cells (1.0 responses/s)")
    lines.tell_whole()
    assert len(written) == 4


def test_on_a_terminal_it_is_a_bar(whole: Whole, clock: Clock) -> None:
    out = io.StringIO()
    with bars(Console(file=out, width=100, force_terminal=True)) as shown:
        shown.follow(whole)
        whole.begin("build").settle(1)
        clock.now = 5.0
        shown.update("[b]a build[/b]", 1, 2)
    assert "whole run, 5 s each, about 30 s left" in out.getvalue()
    assert "[b]a build[/b]" in out.getvalue(), "names are no markup"
