"""From judge specs to outcomes, without lm-eval."""

from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.judges.base import Exchange
from safebasin.results.records import Outcome
from safebasin.tasks import verdicts
from safebasin.tasks.verdicts import build_judges, close_judges, judge_all, judge_each, judge_types

EXCHANGES = [Exchange("p", "ab"), Exchange("p", "abcde"), Exchange("p", "a"), Exchange("p", "ab")]


def test_the_first_judge_that_decides_a_facet_decides_it(stub_judges: Any) -> None:
    judges = build_judges([{"stub_guard": {"model": "x"}}, "stub_refusal", {"stub_refusal": {"over": 0}}])
    outcomes = [outcome for outcome, _ in judge_all(judges, EXCHANGES)]
    assert outcomes == [Outcome.HARMFUL, Outcome.REFUSED, Outcome.BENIGN, Outcome.HARMFUL]


def test_one_pass_over_distinct_exchanges_and_none_a_second_time(stub_judges: Any) -> None:
    judges = build_judges(["stub_guard"])
    seen: list[int] = []
    progress: list[int] = []
    first = judge_all(judges, EXCHANGES, lambda _, e, v: seen.append(len(v)), lambda _, n: progress.append(n))
    assert (len(stub_judges.calls), seen, progress) == (1, [3], [3])
    assert judge_all(judges, EXCHANGES, lambda _, e, v: seen.append(len(v))) == first
    assert (len(stub_judges.calls), seen) == (1, [3, 3])


def test_the_same_spec_is_built_once(stub_judges: Any) -> None:
    a, b, c = build_judges(["stub_guard", {"stub_guard": {}}, {"stub_guard": {"model": "other"}}])
    assert a is b
    assert a is not c
    assert stub_judges.built == 2
    close_judges()
    assert a.closed  # type: ignore[attr-defined]


def test_all_faults_are_told_at_once(stub_judges: Any) -> None:
    specs: Any = ["stub_gard", {"stub_guard": {"modell": 1}}, {"a": 1, "b": 2}, {"stub_guard": [1]}]
    with pytest.raises(InputError) as caught:
        judge_types(specs)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "Did you mean 'stub_guard'?" in lines[0]
    assert "Did you mean 'model'?" in lines[1]


def test_a_list_without_a_judge_of_harm_is_refused(stub_judges: Any) -> None:
    with pytest.raises(InputError, match="decides harm"):
        build_judges(["stub_refusal"])


def test_a_judge_that_loses_a_verdict_is_an_error(stub_judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stub_judges, "judge", lambda self, exchanges, on_done=None: [])
    with pytest.raises(ValueError, match="0 verdicts for 3"):
        judge_each(build_judges(["stub_guard"])[0], EXCHANGES)


def test_sandbox_models_are_found_by_name(stub_judges: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "model_folder", lambda name: Path("/built") / name)
    (judge,) = build_judges([{"stub_guard": {"model": "sandbox/guard"}}])
    assert judge.model == "/built/sandbox/guard"  # type: ignore[attr-defined]
    given = [{"stub_guard": {"model": name}} for name in ("sandbox/guard", "sandbox:5/guard", "x")]
    models = [judge.model for judge in build_judges(given, world=3)]  # type: ignore[attr-defined]
    assert models == ["/built/sandbox:3/guard", "/built/sandbox:5/guard", "x"]
