from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.curvature.lbfgs import CurvatureHistory
from safebasin.restore.losses.objective import NonFiniteError
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.influence import InfluenceStep, backtrack, influence_step

A = torch.tensor([2.0, 8.0])
CONFIG = RestoreConfig.from_preset("paper", max_update=None)


@pytest.fixture
def history() -> CurvatureHistory:
    """H is exactly diag(1/2, 1/8)."""
    made = CurvatureHistory(2, 2)
    for i in range(2):
        made.add(torch.eye(2)[i], A[i] * torch.eye(2)[i])
    return made


def ascent(history: CurvatureHistory, gradient: torch.Tensor, **settings: Any) -> InfluenceStep:
    """The step that raises a loss of that gradient: the loss descended is minus it."""
    return influence_step(history, -gradient, replace(CONFIG, **settings))


def test_the_step_solves_equation_4(history: CurvatureHistory) -> None:
    g = torch.tensor([3.0, -4.0])
    found = ascent(history, g, trust_radius=0.1)
    assert float((found.step * A * found.step).sum().sqrt()) == pytest.approx(
        0.1, rel=1e-5
    )  # on the trust region's edge
    torch.manual_seed(0)
    for other in torch.randn(200, 2):
        other = 0.1 * other / (other * A * other).sum().sqrt()
        assert float(g @ other) <= found.slope + 1e-6
    assert found.slope == pytest.approx(float(g @ found.step), rel=1e-5)
    assert found.bend == pytest.approx(0.1**2, rel=1e-5)
    assert found.gain == pytest.approx(9 / 2 + 16 / 8, rel=1e-5)


def test_the_step_ascends(history: CurvatureHistory) -> None:
    g = torch.tensor([3.0, -4.0])
    assert float(g @ ascent(history, g).step) > 0


def test_the_euclidean_scale_gives_the_length(history: CurvatureHistory) -> None:
    g = torch.tensor([3.0, -4.0])
    trust, euclid = ascent(history, g), ascent(history, g, scale="euclid", max_update=0.7)
    assert float(euclid.step.norm()) == pytest.approx(0.7, rel=1e-5)
    assert torch.nn.functional.cosine_similarity(trust.step, euclid.step, dim=0) == pytest.approx(1.0)


def test_the_trust_step_is_capped(history: CurvatureHistory) -> None:
    found = ascent(history, torch.tensor([3.0, -4.0]), trust_radius=10.0, max_update=0.5)
    assert (float(found.step.norm()), found.norm) == pytest.approx((0.5, 0.5), rel=1e-5)


def test_a_vanished_gradient_is_refused(history: CurvatureHistory) -> None:
    with pytest.raises(InputError, match="does not fall along the influence update"):
        ascent(history, torch.zeros(2))


def test_a_full_step_within_the_bound_is_taken(theta: FlatParameters, quadratic: Any) -> None:
    before, step = theta.get(), torch.full((8,), 0.01)
    found = backtrack(theta, step, quadratic(), limit=1e9)
    assert (found.accepted, found.factor, found.halvings) == (True, 1.0, 0)
    assert torch.equal(theta.get(), before + step)


def test_the_step_is_halved_until_it_fits(theta: FlatParameters, quadratic: Any) -> None:
    retain = quadratic()
    before, limit = theta.get(), retain.loss() + 0.1
    step = 100 * retain.loss_and_gradient()[1]
    found = backtrack(theta, step, retain, limit, halvings=20)
    assert found.accepted
    assert found.halvings > 3
    assert found.retain_loss == retain.loss() <= limit
    assert torch.equal(theta.get(), before + step * 0.5**found.halvings)
    theta.set(before + step * 0.5 ** (found.halvings - 1))
    assert retain.loss() > limit


def test_a_hopeless_step_leaves_every_bit(theta: FlatParameters, quadratic: Any) -> None:
    before = theta.get().view(torch.int32).clone()
    found = backtrack(theta, torch.full((8,), 1e6), quadratic(), limit=-1.0, halvings=3)
    assert (found.accepted, found.factor, found.halvings) == (False, 0.0, 3)
    assert torch.equal(theta.get().view(torch.int32), before)


def test_an_interrupted_search_leaves_every_bit(theta: FlatParameters, quadratic: Any) -> None:
    before = theta.get().view(torch.int32).clone()
    with pytest.raises(KeyboardInterrupt):
        backtrack(theta, torch.full((8,), 0.1), quadratic(fail_at=1), limit=-1.0)
    assert torch.equal(theta.get().view(torch.int32), before)


def test_a_trial_that_is_not_finite_is_halved(theta: FlatParameters, quadratic: Any) -> None:
    retain = quadratic()
    value = retain.loss
    answers = iter([NonFiniteError("nan"), None])

    def loss() -> float:
        if (problem := next(answers)) is not None:
            raise problem
        return value()

    retain.loss = loss
    assert backtrack(theta, torch.full((8,), 0.01), retain, limit=1e9).halvings == 1


def test_shrinking_is_decoupled_from_the_step(theta: FlatParameters, quadratic: Any) -> None:
    before, step = theta.get(), torch.full((8,), 0.01)
    backtrack(theta, step, quadratic(), limit=1e9, shrink=0.05)
    assert torch.allclose(theta.get(), before + step - 0.05 * before, atol=1e-7)
