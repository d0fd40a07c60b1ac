"""Each estimate of curvature where it should be exact, against the dense matrix."""

from typing import Any

import pytest
import torch
from safebasin.restore.curvature.base import Curvature
from safebasin.restore.curvature.fisher import DiagonalFisher
from safebasin.restore.curvature.gauss_newton import DampedGaussNewton, GaussNewton
from safebasin.restore.curvature.lbfgs import CurvatureHistory
from safebasin.restore.losses.divergence import BaseDivergence
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor

from ..dense import divergence, exact, gauss_newton, hessian, label_logits, loss_on, small_model


def inverse_error(found: Curvature, whole: Tensor) -> float:
    """Of a product with the inverse, relative to it."""
    v = torch.randn(len(whole), generator=torch.Generator().manual_seed(5))
    solution = torch.linalg.solve(whole, v.double())
    return float((found.inverse_product(v).double() - solution).norm() / solution.norm())


@pytest.fixture
def at_base() -> Any:
    return small_model(b_size=0.0)


@pytest.fixture(scope="module")
def bend() -> Tensor:
    """The Hessian of the divergence from the base, at the base."""
    return hessian(divergence, small_model(b_size=0.0))


def test_gauss_newton_is_exact_for_the_divergence_at_the_base(at_base: Any, bend: Tensor) -> None:
    flat = FlatParameters(at_base)
    matrix = GaussNewton(flat, [(1.0, loss_on(at_base, kind=BaseDivergence))])
    gradient = torch.ones(flat.size)  # the divergence's own vanishes there
    found = DampedGaussNewton(matrix, gradient, damping=0.5, products=60)
    whole = bend + found.floor * torch.eye(flat.size).double()
    solution = torch.linalg.solve(whole, gradient.double())
    assert float((found.inverse_product(gradient).double() - solution).norm() / solution.norm()) < 5e-3


def test_pairs_are_exact_along_conjugate_steps_that_span_the_space(bend: Tensor) -> None:
    """The eigenvectors of a Hessian are orthogonal and conjugate; the pairs are those of its quadratic."""
    whole = bend + 0.05 * bend.diagonal().mean() * torch.eye(len(bend)).double()
    history = CurvatureHistory(len(bend), len(bend), powell=False)
    for step in torch.linalg.eigh(whole).eigenvectors.T:
        assert history.add(step.float(), (whole @ step).float()).accepted
    assert inverse_error(history, whole) < 1e-3
    assert inverse_error(history, bend + 0.1 * bend.diagonal().mean() * torch.eye(len(bend)).double()) > 0.05


def test_squared_gradients_are_exact_on_the_diagonal_where_the_model_is_calibrated() -> None:
    """One label, which takes each value as often as the model expects it."""
    model, prompt = small_model(), (3, 4, 5, 6)
    flat, row = FlatParameters(model), Encoded((*prompt, 0), 4)
    shares = label_logits(exact(model), row)[0].softmax(0).tolist()
    losses = [(share, loss_on(model, [Encoded((*prompt, label), 4)])) for label, share in enumerate(shares)]
    found = DiagonalFisher(flat, losses, torch.ones(flat.size), damping=0.1)
    diagonal = gauss_newton(model, [row]).diagonal()
    assert diagonal.max() > 1e-3
    assert inverse_error(found, torch.diag(diagonal + found.floor)) < 1e-3
    assert found.floor == pytest.approx(0.1 * float(diagonal.mean()), rel=1e-3)
