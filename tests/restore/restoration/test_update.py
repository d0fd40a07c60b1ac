"""The update: its length, its limits, and what the quadratic model predicts of it, with curvature that is known."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.restoration.influence import influence_step

from ..dense import Dense, small_model

N = 6


@pytest.fixture
def curvature() -> Dense:
    basis = torch.linalg.qr(torch.randn(N, N, generator=torch.Generator().manual_seed(0)).double())[0]
    return Dense(basis @ torch.diag(torch.logspace(-1, 2, N).double()) @ basis.T)


@pytest.fixture
def gradient() -> torch.Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(1))


def norm_in(curvature: Dense, step: torch.Tensor) -> float:
    return float(step.double() @ curvature.matrix @ step.double()) ** 0.5


def test_newton_takes_the_solution_as_it_is(curvature: Dense, gradient: torch.Tensor) -> None:
    found = influence_step(curvature, gradient, RestoreConfig(scale="newton"))
    solution = -torch.linalg.solve(curvature.matrix, gradient.double())
    assert torch.allclose(found.step.double(), solution, rtol=1e-5)
    assert found.direction_norm == pytest.approx(found.norm) == pytest.approx(float(solution.norm()), rel=1e-5)
    assert found.gain == pytest.approx(-float(gradient.double() @ solution), rel=1e-5)
    assert found.slope == pytest.approx(found.gain, rel=1e-5)


@pytest.mark.parametrize("scale", ["newton", "trust"])
@pytest.mark.parametrize("tightness", [1.0, 7.0])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_the_fall_predicted_is_that_of_the_quadratic_without_damping(
    curvature: Dense, gradient: torch.Tensor, scale: Any, tightness: float, factor: float
) -> None:
    """The damping is what is not known of the curvature; none of it is believed."""
    curvature.tightness = tightness
    found = influence_step(curvature, gradient, RestoreConfig(scale=scale, trust_radius=0.3))
    step = factor * found.step.double()
    expected = -gradient.double() @ step - step @ curvature.bare @ step / 2
    assert found.predicted_fall(factor) == pytest.approx(float(expected), rel=1e-4)
    assert found.predicted_fall(factor) > 0


def test_a_tighter_curvature_makes_a_shorter_update(curvature: Dense, gradient: torch.Tensor) -> None:
    norms = []
    for tightness in (1.0, 2.0, 8.0, 64.0):
        curvature.tightness = tightness
        norms.append(influence_step(curvature, gradient, RestoreConfig()).norm)
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 0.5 * norms[0]


def test_newton_ends_at_the_minimum_of_a_quadratic(curvature: Dense) -> None:
    """Its gradient there vanishes."""
    origin, centre = torch.randn(2, N, generator=torch.Generator().manual_seed(2)).double()
    gradient = (curvature.matrix @ (origin - centre)).float()
    step = influence_step(curvature, gradient, RestoreConfig()).step
    assert torch.allclose(origin + step.double(), centre, atol=1e-3)


def test_trust_has_its_length_in_the_metric(curvature: Dense, gradient: torch.Tensor) -> None:
    found = influence_step(curvature, gradient, RestoreConfig(scale="trust", trust_radius=0.3))
    assert norm_in(curvature, found.step) == pytest.approx(0.3, rel=1e-5)
    assert found.slope == pytest.approx(0.3 * found.gain**0.5, rel=1e-5)


def test_euclid_has_its_length_in_the_plane(curvature: Dense, gradient: torch.Tensor) -> None:
    found = influence_step(curvature, gradient, RestoreConfig(scale="euclid", max_update=0.02))
    assert (found.norm, float(found.step.norm())) == pytest.approx((0.02, 0.02), rel=1e-5)
    newton = influence_step(curvature, gradient, RestoreConfig())
    assert torch.nn.functional.cosine_similarity(found.step, newton.step, dim=0) == pytest.approx(1.0)


@pytest.mark.parametrize("scale", ["newton", "trust"])
def test_max_update_limits_and_never_lengthens(curvature: Dense, gradient: torch.Tensor, scale: Any) -> None:
    free = influence_step(curvature, gradient, RestoreConfig(scale=scale, trust_radius=2.0))
    for longest in (0.5 * free.norm, 2 * free.norm):
        config = RestoreConfig(scale=scale, trust_radius=2.0, max_update=longest)
        found = influence_step(curvature, gradient, config)
        assert found.norm == pytest.approx(min(longest, free.norm), rel=1e-5)
        share = found.norm / free.norm
        assert found.slope == pytest.approx(free.slope * share, rel=1e-4)
        assert found.bend == pytest.approx(free.bend * share**2, rel=1e-4)


def test_modules_are_limited_one_by_one() -> None:
    flat = FlatParameters(small_model())
    assert len(flat.modules) == 4  # the queries and the values of two layers
    assert [flat.modules[0][0], flat.modules[-1][1]] == [0, flat.size]
    assert all(one[1] == other[0] for one, other in pairwise(flat.modules))
    names = {name.partition(".lora_")[0] for name in flat.names}
    assert len(names) == 4
    origin, gradient = flat.get(), torch.zeros(flat.size)
    for number, (begin, end) in enumerate(flat.modules):
        gradient[begin:end] = torch.randn(end - begin) * 10.0 ** (1 - number)
    config, whole = RestoreConfig(layer_radius=0.05), Dense(torch.eye(flat.size))
    found = influence_step(whole, gradient, config, flat.modules, origin)
    shortened = []
    for begin, end in flat.modules:
        longest, wished = 0.05 * origin[begin:end].norm(), gradient[begin:end].norm()
        share = min(1.0, float(longest / wished))
        shortened.append(share < 1)
        assert torch.allclose(found.step[begin:end], -share * gradient[begin:end], rtol=1e-5)
    assert shortened == [True, True, True, False]
    assert found.norm == pytest.approx(float(found.step.norm()), rel=1e-5) != pytest.approx(found.direction_norm)
    assert found.slope == pytest.approx(-float(gradient @ found.step), rel=1e-4)
    assert found.bend == pytest.approx(whole.bend(found.step), rel=1e-4)  # of the step as it is, not as it was wished
    assert found.predicted_fall(1.0) > 0


@pytest.mark.parametrize("matrix", [-torch.eye(N), torch.eye(N) * float("nan")])
def test_curvature_that_is_not_positive_is_refused(matrix: torch.Tensor, gradient: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"does not fall along the influence update \(first-order gain (-|nan)"):
        influence_step(Dense(matrix), gradient, RestoreConfig())


def test_a_vanished_gradient_is_refused() -> None:
    with pytest.raises(InputError, match="gradient norm 0"):
        influence_step(Dense(torch.eye(N)), torch.zeros(N), RestoreConfig())
