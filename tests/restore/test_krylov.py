"""Conjugate gradients and the damped inverse against dense solutions."""

import pytest
import torch
from safebasin.restore.gauss_newton import DampedGaussNewton, GaussNewton, conjugate_gradients
from safebasin.restore.parameters import FlatParameters
from torch import Tensor

from .dense import gauss_newton, loss_on, small_model

N = 30


def positive(seed: int = 0, condition: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator))[0]
    return basis @ torch.diag(torch.logspace(0, float(torch.tensor(condition).log10()), N).double()) @ basis.T


def test_it_solves_the_system() -> None:
    a, b = positive(), torch.randn(N)
    found, residual = conjugate_gradients(lambda v: a.float() @ v, b, 4 * N, 1e-5)
    assert torch.allclose(found.double(), torch.linalg.solve(a, b.double()), rtol=1e-3, atol=1e-5)
    assert residual <= 1e-5


@pytest.mark.parametrize("iterations", range(1, 9))
def test_whenever_it_is_stopped_it_is_a_direction_of_descent(iterations: int) -> None:
    """And closer to the solution, in the metric of A, than with one product less."""
    a, b = positive(condition=1e4), torch.randn(N, generator=torch.Generator().manual_seed(1))
    asked: list[Tensor] = []

    def product(v: Tensor) -> Tensor:
        asked.append(v)
        return a.float() @ v

    found, residual = conjugate_gradients(product, b, iterations, 0.0)
    before, _ = conjugate_gradients(product, b, iterations - 1, 0.0)
    assert len(asked) == 2 * iterations - 1
    assert b @ found > 0
    assert residual == pytest.approx(float((a @ found.double() - b).norm() / b.norm()), rel=1e-3)
    errors = [x.double() - torch.linalg.solve(a, b.double()) for x in (before, found)]
    assert errors[1] @ a @ errors[1] < errors[0] @ a @ errors[0]


def test_the_tolerance_is_a_share_of_the_right_hand_side() -> None:
    a, b = positive(), 1e-6 * torch.randn(N)
    products = []

    def product(v: Tensor) -> Tensor:
        products.append(v)
        return a.float() @ v

    found, residual = conjugate_gradients(product, b, 1000, 0.1)
    assert 0.01 < residual <= 0.1
    assert (a @ found.double() - b).norm() <= 0.1 * b.norm() * (1 + 1e-4)
    assert len(products) < N


def test_as_many_distinct_curvatures_as_products_are_solved_exactly() -> None:
    a, b = torch.diag(torch.tensor([1.0] * 10 + [5.0] * 10 + [25.0] * 10)), torch.randn(N)
    found, _ = conjugate_gradients(lambda v: a @ v, b, 3, 0.0)
    assert torch.allclose(found, b / a.diag(), rtol=1e-4, atol=1e-5)


def test_a_matrix_that_is_not_positive_ends_it_at_the_last_iterate() -> None:
    a, b = torch.diag(torch.tensor([4.0, 1.0, -9.0])), torch.tensor([1.0, 1.0, 0.1])
    found, _ = conjugate_gradients(lambda v: a @ v, b, 10, 0.0)
    assert found.isfinite().all()
    assert b @ found > 0
    nothing, residual = conjugate_gradients(lambda v: -v, b, 10, 0.0)
    assert not nothing.any()
    assert residual == 1.0


def test_nothing_is_the_solution_for_nothing() -> None:
    found, residual = conjugate_gradients(lambda v: v, torch.zeros(N), 5, 0.01)
    assert not found.any()
    assert residual == 0.0


@pytest.fixture(scope="module")
def dense() -> Tensor:
    return gauss_newton(small_model())


def damped(gradient: Tensor, **options: float) -> DampedGaussNewton:
    model = small_model()
    matrix = GaussNewton(FlatParameters(model), [(1.0, loss_on(model))], keep_graphs=True)
    return DampedGaussNewton(matrix, gradient, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("damping", [0.1, 3.0])
def test_the_damping_is_a_share_of_the_curvature_along_the_gradient(dense: Tensor, damping: float) -> None:
    g = torch.randn(len(dense), generator=torch.Generator().manual_seed(2))
    along = float(g.double() @ dense @ g.double() / (g.double() @ g.double()))
    for scale in (1.0, 1e-4):  # the length of the gradient does not matter
        assert damped(scale * g, damping=damping).floor == pytest.approx(damping * along, rel=1e-4)


def test_without_curvature_along_the_gradient_the_floor_is_one() -> None:
    size = FlatParameters(small_model()).size
    assert damped(torch.zeros(size), damping=0.1).floor == 1.0


def test_the_inverse_is_that_of_the_damped_matrix(dense: Tensor) -> None:
    g, v = torch.randn(2, len(dense), generator=torch.Generator().manual_seed(3))
    made = damped(g, damping=0.5, iterations=200, tolerance=1e-6)
    whole = dense + made.floor * torch.eye(len(dense)).double()
    solution = torch.linalg.solve(whole, v.double())
    assert (made.inverse_product(v).double() - solution).norm() <= 1e-4 * solution.norm()
    assert (made.product(v).double() - whole @ v.double()).norm() <= 1e-4 * (whole @ v.double()).norm()


def test_the_report_tells_the_effort_and_the_residual(dense: Tensor) -> None:
    g = torch.randn(len(dense), generator=torch.Generator().manual_seed(4))
    made = damped(g, damping=0.1, iterations=4, tolerance=1e-9)
    found = made.inverse_product(g)
    report = made.report()
    assert report["products"] == 1 + 4  # one for the damping
    assert report["damping"] == made.floor
    whole = dense + made.floor * torch.eye(len(dense)).double()
    assert report["residual"] == pytest.approx(float((whole @ found.double() - g).norm() / g.norm()), rel=1e-3)
