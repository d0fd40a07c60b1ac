"""The damping by the gain ratio: the rule alone, and restorations of quadratics whose curvature is known wrongly."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.objective import NonFiniteError
from safebasin.restore.losses.terms import Term
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.gain_ratio import GainRatio
from safebasin.restore.restoration.loop import TRIALS, Aim, Trace, restore_parameters
from torch import Tensor

from ..conftest import Quadratic
from ..dense import Dense

CONFIG = RestoreConfig(iterations=12, epsilon_share=None, retain=1.0)


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [(1.0, 0.1), (0.9, 1 - 0.8**3), (0.75, 1 - 0.5**3), (0.5, 1.0), (0.25, 1 + 0.5**3), (0.01, 1 + 0.98**3)],
)
def test_a_gain_loosens_or_tightens_as_nielsen_says(ratio: float, factor: float) -> None:
    trust = GainRatio(3.0)
    assert trust.gained(2 * ratio, 2.0)
    assert trust.tightness == pytest.approx(3.0 * factor)


@pytest.mark.parametrize("ratio", [1.0, 1.7, 1e9, float("inf")])
def test_one_update_loosens_to_a_tenth_at_most(ratio: float) -> None:
    trust = GainRatio()
    assert trust.gained(ratio, 1.0)
    assert trust.tightness == pytest.approx(0.1)


def test_updates_without_gain_tighten_faster_and_faster_until_one_gains() -> None:
    trust, seen = GainRatio(), []
    for _ in range(4):
        assert not trust.gained(-1.0, 1.0)
        seen.append(trust.tightness)
    assert seen == [2.0, 2.0 * 4, 2.0 * 4 * 8, 2.0 * 4 * 8 * 16]
    assert trust.gained(0.5, 1.0)
    assert trust.tightness == 1024.0
    assert not trust.gained(-1.0, 1.0)
    assert trust.tightness == 2048.0  # the growth begins anew


@pytest.mark.parametrize(
    ("actual", "predicted"),
    [(0.0, 1.0), (1e-3, 1.0), (-1.0, 1.0), (1.0, 0.0), (1.0, -1.0), (-1.0, -1.0), (float("-inf"), 1.0),
     (float("nan"), 1.0), (1.0, float("nan"))],
)  # fmt: skip
def test_what_is_no_gain(actual: float, predicted: float) -> None:
    trust = GainRatio()
    assert not trust.gained(actual, predicted)
    assert trust.tightness == 2.0


@dataclass
class Watched(Dense):
    """Notes where the parameters are as each update is computed, and how tight."""

    theta: FlatParameters | None = None
    seen: list[tuple[Tensor, float]] = field(default_factory=list)

    def inverse_product(self, v: Tensor) -> Tensor:
        assert self.theta is not None
        self.seen.append((self.theta.get().view(torch.int32), self.tightness))
        return super().inverse_product(v)


@dataclass
class Problem:
    """A quadratic to descend, nothing that bounds it, and a curvature that is `times` the true one."""

    theta: FlatParameters
    loss: Quadratic
    weight: float = 1.0
    curvatures: list[Watched] = field(default_factory=list)

    def run(self, times: float, config: RestoreConfig = CONFIG, floor: float = 0.1, **more: Any) -> Trace:
        def estimate(iteration: int, terms: Any, gradient: Tensor, progress: Any) -> Any:
            eye = torch.eye(self.theta.size).double()
            self.curvatures.append(Watched(times * self.loss.a + floor * eye, floor, theta=self.theta))
            return self.curvatures[-1], ()

        terms = [Term("loss", self.weight, self.loss)]
        aim = Aim(lambda *_: terms, estimate, 1, terms, **more)
        return restore_parameters(self.theta, aim, Quadratic(self.theta, 0 * self.loss.a, self.loss.centre), config)


@pytest.fixture
def problem(theta: FlatParameters, quadratic: Callable[..., Quadratic]) -> Problem:
    return Problem(theta, quadratic(1, top=10.0))


def test_with_the_right_curvature_it_soon_trusts_it_wholly(problem: Problem) -> None:
    start = problem.loss.loss()
    trace = problem.run(1.0)
    rows = trace.iterations
    assert all(row["trials"] == 1 and row["gain_ratio"] == pytest.approx(1.0, abs=0.01) for row in rows[:3])
    assert [row["tightness"] for row in rows[:4]] == pytest.approx([1.0, 0.1, 0.01, 0.001], rel=1e-3)
    assert problem.loss.loss() < 1e-6 * start


@pytest.mark.parametrize("times", [0.0, 0.01, 0.1])
def test_curvature_that_is_too_low_is_made_up_for_by_damping(problem: Problem, times: float) -> None:
    """Every update gains, although the first one that the curvature asks for leads too far."""
    start = problem.loss.loss()
    trace = problem.run(times, floor=1e-3)
    rows = trace.iterations
    assert rows[0]["trials"] > 1
    assert all(row["accepted"] and row["fall"] > 0 for row in rows)
    assert [row["loss"] for row in rows[:-1]] == [row["loss_before"] for row in rows[1:]]
    assert problem.loss.loss() < 0.05 * start


def test_an_update_without_gain_is_undone_bit_for_bit_and_taken_shorter(problem: Problem) -> None:
    before = problem.theta.get().view(torch.int32)
    row = problem.run(0.0, replace(CONFIG, iterations=1), floor=1e-3).iterations[0]
    (curvature,) = problem.curvatures
    assert len(curvature.seen) == row["trials"] > 2
    assert all(torch.equal(where, before) for where, _ in curvature.seen)
    grown = [1.0, 2.0, 8.0, 64.0, 1024.0, 2.0**15, 2.0**21]
    assert [tightness for _, tightness in curvature.seen] == grown[: row["trials"]]
    assert row["tightness"] == grown[row["trials"] - 1]
    assert row["floor"] == pytest.approx(1e-3 * row["tightness"])


@pytest.mark.parametrize("times", [3.0, 30.0])
def test_curvature_that_is_too_high_only_costs_updates(problem: Problem, times: float) -> None:
    start = problem.loss.loss()
    rows = problem.run(times, floor=1.0).iterations
    assert len(rows) == 12
    assert all(row["trials"] == 1 and row["gain_ratio"] > 1 for row in rows)
    assert [later["tightness"] / row["tightness"] for row, later in pairwise(rows)] == pytest.approx(
        [0.1] * (len(rows) - 1)
    )
    assert problem.loss.loss() < 0.9 * start


def test_the_tightness_is_carried_to_the_next_iteration(problem: Problem) -> None:
    rows = problem.run(0.0, floor=1e-3).iterations
    for row, later in pairwise(rows):
        factor = max(0.1, 1 - (2 * min(row["gain_ratio"], 1.0) - 1) ** 3)
        grown = [1.0, 2.0, 8.0, 64.0, 1024.0, 2.0**15, 2.0**21]
        assert later["tightness"] == pytest.approx(factor * row["tightness"] * grown[later["trials"] - 1])


def test_where_no_update_gains_the_parameters_stay_and_it_ends(problem: Problem) -> None:
    """The gradient points the wrong way."""
    before = problem.theta.get().view(torch.int32)
    trace = problem.run(1.0, adjust=lambda iteration, gradient: -gradient)
    (row,) = trace.iterations
    assert trace.ended == "no gain"
    assert (row["accepted"], row["trials"]) == (False, TRIALS)
    assert row["gain_ratio"] < 0
    assert torch.equal(problem.theta.get().view(torch.int32), before)
    assert row["loss"] == row["loss_before"]


def test_an_update_that_gains_next_to_nothing_is_the_last(problem: Problem) -> None:
    """It is kept."""
    problem.theta.set(problem.loss.centre.float())
    problem.theta.add(torch.ones(problem.theta.size), 1e-3)
    trace = problem.run(1.0, floor=1e4)
    assert trace.ended == "no gain"
    (row,) = trace.iterations
    assert row["accepted"]
    assert 0 < row["fall"] < 0.01 * row["loss_before"]
    assert problem.loss.loss() < row["loss_before"]


def test_without_adaptation_every_update_within_the_bound_is_taken(problem: Problem) -> None:
    """Even one that leads far too far."""
    trace = problem.run(0.01, replace(CONFIG, adaptive=False, iterations=2), floor=1e-3)
    assert [row["accepted"] for row in trace.iterations] == [True, True]
    assert [row["tightness"] for row in trace.iterations] == [1.0, 1.0]
    assert trace.iterations[0]["loss"] > trace.iterations[0]["loss_before"]
    assert trace.ended == "iterations"


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_loss_that_is_not_finite_is_no_gain(problem: Problem, weight: float) -> None:
    """Neither where it is descended nor where it is ascended, which would be an endless gain."""
    problem.weight = weight
    value, seen = problem.loss.loss, []

    def loss() -> float:
        seen.append(1)
        if len(seen) == 2:  # after the value at the start
            raise NonFiniteError("inf")
        return value()

    problem.loss.loss = loss  # type: ignore[method-assign]
    row = problem.run(1.0, replace(CONFIG, retain=None, epsilon=1.0, iterations=1), floor=20.0).iterations[0]
    assert (row["accepted"], row["trials"], row["tightness"]) == (True, 2, 2.0)
    assert row["fall"] > 0
