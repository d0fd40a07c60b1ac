"""The loop of iterations with an aim of any kind: curvature kept or anew, the ends there are, the trace."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.terms import Term
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.loop import Aim, Trace, restore_parameters
from safebasin.restore.restoration.stopping import State
from torch import Tensor

from ..dense import Dense

CONFIG = RestoreConfig(iterations=4, epsilon_share=None, retain=1.0, adaptive=False)
ADAPTIVE = replace(CONFIG, adaptive=True)


class Problem:
    """Two quadratics to descend, one bound, curvature known."""

    def __init__(self, theta: FlatParameters, quadratic: Any) -> None:
        self.one, self.other, self.retain = quadratic(1, top=3.0), quadratic(2), quadratic(3)
        theta.set(self.retain.centre.float())  # tuned: any update costs
        self.theta, self.start = theta, theta.get()
        self.curvature = Dense(self.one.a + 0.5 * self.other.a + 4.0 * torch.eye(theta.size).double(), 4.0)
        self.asked: list[int] = []
        self.told: list[tuple[int, dict[str, float], float]] = []
        self.seen: list[Tensor] = []

    def terms(self, iteration: int, values: Mapping[str, float], left: float) -> Sequence[Term]:
        self.told.append((iteration, dict(values), left))
        return [Term("one", 1.0, self.one), Term("other", 0.5, self.other)]

    def estimate(self, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Any) -> Any:
        self.asked.append(iteration)
        self.seen.append(gradient)
        progress(1)
        return self.curvature, ()

    def run(self, config: RestoreConfig = CONFIG, on_step: Any = lambda *_: None, **more: Any) -> Trace:
        fixed, told = [Term("one", 1.0, self.one)], more.pop("on_update", lambda iteration: None)
        aim = Aim(self.terms, self.estimate, 1, fixed, epsilon=more.pop("epsilon", None), **more)
        return restore_parameters(self.theta, aim, self.retain, config, on_step, told)

    def gradient(self, theta: Tensor) -> Tensor:
        parts = [weight * q.a @ (theta - q.centre) for weight, q in ((1.0, self.one), (0.5, self.other))]
        return parts[0] + parts[1]

    def bits(self) -> Tensor:
        return self.theta.get().view(torch.int32)


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
    assert (trace.ended, trace.state, trace.epsilon) == ("iterations", "", None)
    assert [row["floor"] for row in trace.iterations] == [4.0] * 4


def test_each_accepted_update_is_told_with_where_it_led(problem: Problem) -> None:
    seen: dict[int, Tensor] = {}
    problem.run(on_update=lambda iteration: seen.update({iteration: problem.theta.get()}))
    assert [*seen] == [1, 2, 3, 4]
    assert torch.equal(seen[4], problem.theta.get())
    first = (
        problem.start - torch.linalg.solve(problem.curvature.matrix, problem.gradient(problem.start.double())).float()
    )
    assert torch.allclose(seen[1], first, atol=1e-5)
    problem.run(epsilon=-1.0, on_update=lambda iteration: pytest.fail("the bound allows no update"))


def test_curvature_may_be_estimated_once(problem: Problem) -> None:
    trace = problem.run(replace(CONFIG, fresh_curvature=False))
    assert problem.asked == [0]
    assert len(trace.iterations) == 4
    assert len({row["gradient_norm"] for row in trace.iterations}) == 4  # the gradients are new


def test_shrinking_is_decoupled_from_the_update_and_annealed(problem: Problem) -> None:
    trace = problem.run(replace(CONFIG, shrink=0.2, shrink_anneal=0.5, iterations=2))
    expected = problem.start.double()
    for share in (0.2, 0.1):
        expected = (1 - share) * expected - torch.linalg.solve(problem.curvature.matrix, problem.gradient(expected))
    assert torch.allclose(problem.theta.get().double(), expected, atol=1e-5)
    assert [row["shrink"] for row in trace.iterations] == [0.2, 0.1]


def test_by_default_nothing_is_shrunk() -> None:
    assert RestoreConfig().shrink == 0.0


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE])
def test_the_weights_are_asked_for_with_the_values_as_they_are_and_the_rise_that_is_left(
    problem: Problem, config: RestoreConfig
) -> None:
    trace = problem.run(replace(config, retain=None, epsilon=1.0), epsilon=50.0)
    rows = trace.iterations
    assert [iteration for iteration, _, _ in problem.told] == [0, 1, 2, 3]
    assert [values["one"] for _, values, _ in problem.told] == [row["one_before"] for row in rows]
    limit = trace.retain_reference + 50.0
    assert [left for _, _, left in problem.told] == pytest.approx([limit - row["retain_loss_before"] for row in rows])
    assert len({left for _, _, left in problem.told}) == 4
    assert all(row["retain_limit"] == limit for row in rows)
    assert trace.epsilon == 50.0


def stops_at(problem: Problem, number: int, asked: list[Tensor]) -> Any:
    """Enough when it is asked for the `number`-th time, counting from 0."""

    def enough() -> State:
        asked.append(problem.theta.get())
        return State(len(asked) > number, f"{len(asked)} of {number + 1}")

    return enough


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE])
def test_what_is_restored_already_is_left_alone(problem: Problem, config: RestoreConfig) -> None:
    """Bit for bit, and without one gradient."""
    before, told = problem.bits(), []
    trace = problem.run(config, enough=stops_at(problem, 0, []), on_step=lambda *news: told.append(news))
    assert (trace.ended, trace.state, trace.iterations) == ("restored", "1 of 1", [])
    assert torch.equal(problem.bits(), before)
    assert not problem.asked
    assert "backward" not in [*problem.one.calls, *problem.other.calls, *problem.retain.calls]
    assert told[-1] == ("restoring", 12, 12)
    assert len(trace.frame()) == 0


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE])
def test_it_stops_after_the_first_update_that_is_enough(problem: Problem, config: RestoreConfig) -> None:
    asked: list[Tensor] = []
    told: list[Any] = []
    trace = problem.run(config, enough=stops_at(problem, 2, asked), on_step=lambda *news: told.append(news))
    assert (trace.ended, trace.state) == ("restored", "3 of 3")
    assert len(trace.iterations) == 2
    assert torch.equal(asked[0], problem.start)  # at the start and after each update
    assert torch.equal(problem.theta.get(), asked[2])
    assert trace.iterations[-1]["one"] == problem.one.loss()
    assert told[-1] == ("restoring", 12, 12)


def unrestored() -> State:
    return State(False, "3 of 5 refused")


def test_a_bound_that_allows_no_update_ends_it_with_a_warning(problem: Problem) -> None:
    before = problem.bits()
    message = (
        r"The model is not fully restored: 3 of 5 refused, and the bound on the retain loss \(epsilon 1e-09\) allows "
        "no further update"
    )
    with pytest.warns(UserWarning, match=message):
        trace = problem.run(replace(ADAPTIVE, halvings=2), enough=unrestored, epsilon=1e-9)
    (row,) = trace.iterations
    assert (trace.ended, trace.state, trace.epsilon) == ("bound", "3 of 5 refused", 1e-9)
    assert (row["accepted"], row["halvings"], row["step_factor"], row["moved_norm"]) == (False, 2, 0.0, 0.0)
    assert row["retain_loss"] == trace.retain_reference
    assert row["one"] == row["one_before"]
    assert torch.equal(problem.bits(), before)


def test_no_gain_ends_it_with_a_warning(problem: Problem) -> None:
    with pytest.warns(UserWarning, match="not fully restored: 3 of 5 refused, and no further update gains"):
        trace = problem.run(ADAPTIVE, enough=unrestored, adjust=lambda iteration, gradient: -gradient)
    assert (trace.ended, len(trace.iterations)) == ("no gain", 1)


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE])
def test_the_last_iteration_ends_it_with_a_warning(problem: Problem, config: RestoreConfig) -> None:
    with pytest.warns(UserWarning, match="not fully restored: 3 of 5 refused, and all 2 iterations are done"):
        trace = problem.run(replace(config, iterations=2), enough=unrestored)
    assert (trace.ended, trace.state, len(trace.iterations)) == ("iterations", "3 of 5 refused", 2)


@pytest.mark.parametrize("changes", [{}, {"epsilon": 1e-9}, {"adjust": lambda iteration, gradient: -gradient}])
def test_where_nothing_measures_it_nothing_is_said(
    problem: Problem, changes: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    trace = problem.run(ADAPTIVE, **changes)
    assert trace.ended != "restored"
    assert trace.state == ""
    assert not recwarn


def test_an_update_that_was_given_up_is_not_asked_about(problem: Problem) -> None:
    """Without a memory the next iteration is tried all the same, as its batches are others."""
    asked: list[Tensor] = []
    with pytest.warns(UserWarning, match="the bound on the retain loss"):
        trace = problem.run(replace(CONFIG, halvings=0, iterations=2), enough=stops_at(problem, 1, asked), epsilon=0.0)
    assert [row["accepted"] for row in trace.iterations] == [False, False]
    assert (trace.ended, len(asked)) == ("bound", 1)
    assert torch.equal(problem.theta.get(), problem.start)


def test_a_bound_that_was_met_and_left_behind_is_not_the_end(problem: Problem) -> None:
    """The second update is smaller, as another gradient is."""

    def adjust(iteration: int, gradient: Tensor) -> Tensor:
        return gradient * (1.0 if iteration == 0 else 1e-4)

    trace = problem.run(replace(CONFIG, halvings=0, iterations=2), epsilon=1e-3, adjust=adjust)
    assert [row["accepted"] for row in trace.iterations] == [False, True]
    assert trace.ended == "iterations"


@pytest.mark.parametrize(("epsilon", "updates"), [(1.0, 3), (1e6, 1), (None, 1)])
def test_an_update_that_lowers_the_retain_loss_alone_is_the_last_where_that_is_little_of_the_bound(
    problem: Problem, epsilon: float | None, updates: int
) -> None:
    """Room that another update may use is a gain; the fixed term begins at its minimum, and can only rise."""
    problem.other = problem.retain
    problem.theta.set(problem.one.centre.float())
    problem.curvature = Dense(problem.one.a + 0.5 * problem.retain.a + 4.0 * torch.eye(8).double(), 4.0)
    trace = problem.run(replace(ADAPTIVE, iterations=3), epsilon=epsilon)
    rows = trace.iterations
    assert (len(rows), trace.ended) == (updates, "iterations" if updates > 1 else "no gain")
    assert all(row["accepted"] and row["retain_loss"] < row["retain_loss_before"] - 0.01 for row in rows)
    assert all(row["one"] >= row["one_before"] for row in rows)


def test_an_update_that_lowers_neither_the_fixed_terms_nor_the_retain_loss_is_the_last(problem: Problem) -> None:
    """It lowers the sum of the terms all the same, and is kept."""
    problem.theta.set(problem.one.centre.float())
    trace = problem.run(replace(ADAPTIVE, iterations=3), epsilon=50.0)
    (row,) = trace.iterations
    assert trace.ended == "no gain"
    assert row["accepted"]
    assert row["one"] >= row["one_before"]
    assert row["retain_loss"] > row["retain_loss_before"] - 0.01 * 50.0


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
    with_bound = problem.run(replace(CONFIG, halvings=30, iterations=1), epsilon=1e-6).iterations[0]
    problem.theta.set(problem.start)
    without = problem.run(replace(CONFIG, iterations=1)).iterations[0]
    assert (without["retain_limit"], without["halvings"], without["step_factor"]) == (None, 0, 1.0)
    assert with_bound["retain_limit"] == pytest.approx(1e-6, rel=0.1)
    assert with_bound["halvings"] > 0


@pytest.mark.parametrize("config", [CONFIG, ADAPTIVE])
def test_the_trace_tells_all_terms_before_and_the_fixed_ones_after(problem: Problem, config: RestoreConfig) -> None:
    trace = problem.run(config)
    rows = trace.iterations
    assert all(row.keys() >= {"one_before", "other_before", "one"} and "other" not in row for row in rows)
    assert [row["one"] for row in rows[:-1]] == [row["one_before"] for row in rows[1:]]
    assert rows[-1]["one"] == problem.one.loss()
    falls = [row["one_before"] + 0.5 * row["other_before"] for row in rows]
    assert falls == sorted(falls, reverse=True)
