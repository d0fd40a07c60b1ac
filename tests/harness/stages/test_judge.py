"""Judges on other machines: asked from one process, in small chunks that are kept at once."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from safebasin.errors import InputError
from safebasin.harness.stages.judge import judge_cells
from safebasin.harness.stages.report import _outcome
from safebasin.harness.store.store import Sample, Store
from safebasin.judges import Exchange
from safebasin.judges.keywords import KeywordJudge
from safebasin.results.records import Outcome, Verdict, combine


class Remote(KeywordJudge):
    """Keywords, as if from another machine; fails after some calls."""

    name: ClassVar[str] = "remote"
    chunk = 3
    notice = "sends all to nowhere"

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    @property
    def spent(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def judge(self, exchanges: Any, on_done: Any = None) -> list[Verdict]:
        self.calls -= 1
        if self.calls < 0:
            raise InputError("the server is gone")
        return super().judge(exchanges, on_done)


def test_what_a_server_has_answered_is_kept_when_it_fails(tmp_path: Path) -> None:
    store, exchanges = Store(tmp_path / "store.sqlite"), [Exchange("p", f"Sure {at}") for at in range(10)]
    store.add_cell("cell", {}, None, [Sample(at, *one) for at, one in enumerate(exchanges)], 10)
    asked: list[int] = []

    def processes(judge: int, chunks: int) -> int:
        asked.append(chunks)
        return 2

    failing = Remote(2)
    with pytest.raises(InputError, match="the server is gone"):
        judge_cells([failing], ["cell"], "run", store, lambda *_: None, processes)
    assert len(store.verdicts(failing.identity, exchanges)) == 6
    again = Remote(2)
    judge_cells([again], ["cell"], "run", store, lambda *_: None, processes)
    assert again.spent == {"calls": 0}  # in this process: 4 exchanges in chunks of 3
    assert len(store.verdicts(failing.identity, exchanges)) == 10
    assert asked == []


def test_the_grade_is_that_of_the_first_judge_that_grades(tmp_path: Path) -> None:
    guard, graded = Verdict(harmful=False, score=0.1, raw="safe"), Verdict(harmful=True, grade=0.75, maximal=False)
    decided = [(frozenset({"harm"}), guard), (frozenset({"harm", "grade"}), graded)]
    assert combine(decided) == (
        Outcome.BENIGN,
        Verdict(harmful=False, score=0.1, raw="safe", grade=0.75, maximal=False),
    )
    store, exchange = Store(tmp_path / "store.sqlite"), Exchange("p", "r")
    store.add_verdicts("grader", [exchange], [graded])
    known = store.verdicts("grader", [exchange])
    sample = _outcome(7, exchange, [(frozenset({"harm", "grade"}), known)])
    assert (sample.doc_id, sample.outcome, sample.grade, sample.maximal) == (7, Outcome.HARMFUL, 0.75, False)


@pytest.mark.parametrize("count", [1, 2])
def test_thinking_that_did_not_end_goes_before_no_judge_in_one_process_or_several(tmp_path: Path, count: int) -> None:
    store, exchanges = Store(tmp_path / "store.sqlite"), [Exchange("p", "Sure"), Exchange("p", "<think>Sure")]
    store.add_cell("cell", {}, None, [Sample(at, *one) for at, one in enumerate(exchanges)], 2)
    judge = KeywordJudge()
    judge_cells([judge], ["cell"], "run", store, lambda *_: None, lambda *_: count)
    said = store.verdicts(judge.identity, exchanges)
    assert (said[exchanges[0]].harmful, said[exchanges[0]].unfinished) == (True, False)
    assert (said[exchanges[1]].harmful, said[exchanges[1]].unfinished) == (None, True)


class Counting(KeywordJudge):
    """Keywords; notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Exchange] = []

    def judge(self, exchanges: Any, on_done: Any = None) -> list[Verdict]:
        self.asked += exchanges
        return super().judge(exchanges, on_done)


@pytest.mark.parametrize("count", [1, 2])
def test_every_response_is_judged_once_however_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr("safebasin.harness.store.store._PAGE", 3)
    monkeypatch.setattr("safebasin.harness.stages.judge._LOOKED_UP", 4)
    monkeypatch.setattr("safebasin.tasks.verdicts.CHUNK", 5)
    store, asked = Store(tmp_path / "store.sqlite"), [Exchange(f"p{at % 9}", f"Sure {at % 23}") for at in range(40)]
    for cell, part in (("one", asked[:31]), ("two", asked[31:])):
        store.add_cell(cell, {}, None, [Sample(at, *each) for at, each in enumerate(part)], len(part))
    judge, told = Counting(), []
    store.add_verdicts(judge.identity, asked[:2], [Verdict(harmful=False, raw="known")] * 2)
    judge_cells([judge], ["one", "two"], "run", store, lambda *how: told.append(how[1:]), lambda *_: count)
    different = [*dict.fromkeys(asked)]
    if count == 1:
        assert judge.asked == different[2:]
    found = store.verdicts(judge.identity, different)
    assert [found[each].raw for each in different[:2]] == ["known", "known"]
    assert [found[each].harmful for each in different[2:]] == [True] * len(different[2:])
    assert (told[0], told[-1]) == ((2, len(different)), (len(different), len(different)))
    assert told == sorted(told)
