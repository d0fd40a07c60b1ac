"""The loop of iterations with an aim of any kind: curvature kept or anew, the end, the pull, the trace."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.restore.config import RestoreConfig
from safebasin.restore.parameters import FlatParameters
from safebasin.restore.restoration import Aim, Trace, restore_parameters
from safebasin.restore.terms import Term
from torch import Tensor

from .dense import Dense

CONFIG = RestoreConfig(iterations=4, epsilon=None, retain=1.0, shrink=0.0)


class Problem:
    """Two quadratics to descend, one bound, curvature known."""

    def __init__(self, theta: FlatParameters, quadratic: Any) -> None:
        self.one, self.other, self.retain = quadratic(1, top=3.0), quadratic(2), quadratic(3)
        theta.set(self.retain.centre.float())  # tuned: any update costs
        self.theta, self.start = theta, theta.get()
        self.curvature = Dense(self.one.a + 0.5 * self.other.a + 4.0 * torch.eye(theta.size).double(), 4.0)
        self.asked: list[int] = []
        self.seen: list[Tensor] = []

    def terms(self, iteration: int) -> Sequence[Term]:
        return [Term("one", 1.0, self.one), Term("other", 0.5, self.other)]

    def estimate(self, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Any) -> Any:
        self.asked.append(iteration)
        self.seen.append(gradient)
        progress(1)
        return self.curvature, ()

    def run(self, config: RestoreConfig = CONFIG, on_step: Any = lambda *_: None, **more: Any) -> Trace:
        aim = Aim(self.terms, self.estimate, 1, self.terms(0)[:1], **more)
        return restore_parameters(self.theta, aim, self.retain, config, on_step)

    def gradient(self, theta: Tensor) -> Tensor:
        parts = [weight * q.a @ (theta - q.centre) for weight, q in ((1.0, self.one), (0.5, self.other))]
        return parts[0] + parts[1]


@pytest.fixture
def problem(theta: FlatParameters, quadratic: Callable[..., Any]) -> Problem:
    return Problem(theta, quadratic)


def test_updates_are_newton_steps_of_the_weighted_sum(problem: Problem) -> None:
    expected = problem.start.double()
    trace = problem.run()
    for _ in range(4):
        expected = expected - torch.linalg.solve(problem.curvature.matrix, problem.gradient(expected))
    assert torch.allclose(problem.theta.get().double(), expected, atol=1e-5)
    assert torch.allclose(problem.seen[0].double(), problem.gradient(problem.start.double()), rtol=1e-4, atol=1e-5)
    assert problem.asked == [0, 1, 2, 3]
    assert trace.stopped == ""
    assert [row["floor"] for row in trace.iterations] == [4.0] * 4


def test_curvature_may_be_estimated_once(problem: Problem) -> None:
    trace = problem.run(replace(CONFIG, fresh_curvature=False))
    assert problem.asked == [0]
    assert len(trace.iterations) == 4
    assert len({row["gradient_norm"] for row in trace.iterations}) == 4  # the gradients are new


def test_the_pull_is_taken_in_the_metric_and_annealed(problem: Problem) -> None:
    trace = problem.run(replace(CONFIG, shrink=0.2, shrink_anneal=0.5, iterations=2))
    expected = problem.start.double()
    for share in (0.2, 0.1):
        wanted = problem.gradient(expected) + 4.0 * share * expected
        expected = expected - torch.linalg.solve(problem.curvature.matrix, wanted)
    assert torch.allclose(problem.theta.get().double(), expected, atol=1e-5)
    assert [row["shrink"] for row in trace.iterations] == [0.2, 0.1]


def test_shrinking_in_the_parameters_is_as_it_is(problem: Problem) -> None:
    problem.run(replace(CONFIG, shrink=0.2, shrink_in="parameters", iterations=1))
    start = problem.start.double()
    step = torch.linalg.solve(problem.curvature.matrix, problem.gradient(start))
    assert torch.allclose(problem.theta.get().double(), 0.8 * start - step, atol=1e-5)


def test_it_stops_after_the_first_update_that_is_enough(problem: Problem) -> None:
    asked: list[Tensor] = []

    def enough() -> str:
        asked.append(problem.theta.get())
        return "restored" if len(asked) == 2 else ""

    told: list[Any] = []
    trace = problem.run(enough=enough, on_step=lambda *news: told.append(news))
    assert trace.stopped == "restored"
    assert len(trace.iterations) == 2
    assert torch.equal(problem.theta.get(), asked[1])
    assert trace.iterations[-1]["one"] == problem.one.loss()
    assert told[-1] == ("restoring", 12, 12)


def test_an_update_that_was_given_up_is_not_asked_about(problem: Problem) -> None:
    def enough() -> str:
        raise AssertionError

    trace = problem.run(replace(CONFIG, epsilon=0.0, halvings=0, iterations=2), enough=enough)
    assert [row["accepted"] for row in trace.iterations] == [False, False]
    assert (trace.stopped, torch.equal(problem.theta.get(), problem.start)) == ("", True)


def test_the_gradient_may_be_adjusted_before_it_is_used(problem: Problem) -> None:
    def first_only(iteration: int, gradient: Tensor) -> Tensor:
        return gradient * (torch.arange(len(gradient)) == iteration)

    problem.curvature = Dense(torch.eye(problem.theta.size))
    trace = problem.run(replace(CONFIG, iterations=2), adjust=first_only)
    moved = (problem.theta.get() - problem.start).abs() > 0
    assert moved.tolist() == [True, True] + [False] * 6
    assert torch.equal(problem.seen[0].ne(0), torch.arange(8) == 0)
    assert trace.iterations[0]["gradient_norm"] == pytest.approx(float(problem.seen[0].norm()))


def test_without_a_bound_the_retain_loss_may_do_what_it_likes(problem: Problem) -> None:
    with_bound = problem.run(replace(CONFIG, epsilon=1e-6, iterations=1)).iterations[0]
    problem.theta.set(problem.start)
    without = problem.run(replace(CONFIG, iterations=1)).iterations[0]
    assert (without["retain_limit"], without["halvings"], without["step_factor"]) == (None, 0, 1.0)
    assert with_bound["retain_limit"] == pytest.approx(1e-6, rel=0.1)
    assert with_bound["halvings"] > 0


def test_the_trace_tells_all_terms_before_and_the_fixed_ones_after(problem: Problem) -> None:
    trace = problem.run()
    rows = trace.iterations
    assert all(row.keys() >= {"one_before", "other_before", "one"} and "other" not in row for row in rows)
    assert [row["one"] for row in rows[:-1]] == [row["one_before"] for row in rows[1:]]
    assert rows[-1]["one"] == problem.one.loss()
    falls = [row["one_before"] + 0.5 * row["other_before"] for row in rows]
    assert falls == sorted(falls, reverse=True)
