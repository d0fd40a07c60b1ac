"""The Krylov space of the gradient and the damped inverse on it, against conjugate gradients and dense solutions."""

from typing import Any

import pytest
import torch
from safebasin.restore.curvature.gauss_newton import DampedGaussNewton, GaussNewton, krylov_space
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor

from ..dense import gauss_newton, loss_on, small_model

N = 30


def positive(condition: float = 100.0) -> Tensor:
    """A random matrix with eigenvalues from 1 to `condition`, float64."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=generator))[0]
    return basis @ torch.diag(torch.logspace(0, float(torch.tensor(condition).log10()), N).double()) @ basis.T


def vector(seed: int = 1, size: int = N) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


class Exact:
    """Stands for a Gauss-Newton matrix that is known; its products have the rounding of fp32 alone."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.products = matrix, 0

    def product(self, v: Tensor) -> Tensor:
        self.products += 1
        return (self.matrix.double() @ v.double()).to(v)


def damped(matrix: Tensor, gradient: Tensor, damping: float = 0.1, **options: Any) -> DampedGaussNewton:
    return DampedGaussNewton(Exact(matrix), gradient, damping, **options)  # type: ignore[arg-type]


def conjugate_gradients(a: Tensor, b: Tensor, iterations: int) -> Tensor:
    """As every textbook has it (Hestenes & Stiefel 1952), from zero, in float64."""
    x, r = torch.zeros_like(b), b.clone()
    p = r.clone()
    for _ in range(iterations):
        alpha = (r @ r) / (p @ a @ p)
        x, later = x + alpha * p, r - alpha * (a @ p)
        p = later + (later @ later) / (r @ r) * p
        r = later
    return x


def with_floor(matrix: Tensor, floor: float) -> Tensor:
    return matrix.double() + floor * torch.eye(len(matrix), dtype=torch.float64)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("products", [1, 2, 5, 12])
def test_the_basis_is_orthonormal_and_the_matrix_is_that_on_it(products: int) -> None:
    a, b, made = positive(), vector(), Exact(positive())
    basis, inner = krylov_space(made.product, b, products, lambda matrix: False)
    v = basis.double()
    assert (len(basis), made.products) == (products, products)
    assert torch.allclose(basis[0], b / b.norm(), atol=1e-6)
    assert torch.allclose(v @ v.T, torch.eye(products).double(), atol=1e-6)
    assert torch.allclose(v @ a @ v.T, inner, atol=1e-4 * float(inner.max()))
    assert torch.equal(inner, torch.triu(torch.tril(inner, 1), -1))
    assert torch.equal(inner, inner.T)


def test_it_is_the_span_of_the_powers() -> None:
    a, b = positive(), vector().double()
    basis, _ = krylov_space(Exact(a).product, b.float(), 4, lambda matrix: False)
    powers = torch.stack([b, a @ b, a @ a @ b, a @ a @ a @ b])
    outside = powers.T - basis.double().T @ (basis.double() @ powers.T)
    assert (outside.norm(dim=0) / powers.norm(dim=1)).max() < 1e-5


def test_orthogonality_is_not_lost_where_plain_lanczos_loses_it() -> None:
    """An isolated largest eigenvalue converges soon, and comes back as a copy without reorthogonalisation."""
    a = torch.diag(torch.cat([torch.linspace(1, 2, N - 1), torch.tensor([1e3])])).double()
    basis, _ = krylov_space(Exact(a).product, vector(), N, lambda matrix: False)
    assert torch.allclose(basis @ basis.T, torch.eye(len(basis)), atol=1e-5)


def test_it_ends_where_there_is_no_further_direction() -> None:
    a = torch.diag(torch.tensor([1.0] * 10 + [5.0] * 10 + [25.0] * 10))
    made = Exact(a)
    basis, inner = krylov_space(made.product, vector(), 10, lambda matrix: False)
    assert (len(basis), made.products) == (3, 3)
    assert torch.allclose(torch.linalg.eigvalsh(inner), torch.tensor([1.0, 5.0, 25.0]).double(), rtol=1e-4)


def test_a_start_without_curvature_is_all_there_is() -> None:
    basis, inner = krylov_space(torch.zeros_like, vector(), 10, lambda matrix: False)
    assert (len(basis), float(inner)) == (1, 0.0)


def test_it_is_asked_after_each_product_whether_to_end() -> None:
    asked: list[Tensor] = []

    def enough(matrix: Tensor) -> bool:
        asked.append(matrix)
        return len(matrix) == 4

    made = Exact(positive())
    basis, inner = krylov_space(made.product, vector(), 10, enough)
    assert [len(matrix) for matrix in asked] == [1, 2, 3, 4]
    assert all(torch.equal(matrix, inner[: len(matrix), : len(matrix)]) for matrix in asked)
    assert (len(basis), made.products) == (4, 4)


@pytest.mark.parametrize("products", range(1, 9))
def test_on_the_gradient_it_is_the_iterate_of_conjugate_gradients(products: int) -> None:
    a, g = positive(), vector()
    found = damped(a, g, products=products)
    whole = with_floor(a, found.floor)
    assert found.products == products
    assert error(found.inverse_product(g), conjugate_gradients(whole, g.double(), products)) < 1e-4
    assert error(found.inverse_product(-3 * g), -3 * conjugate_gradients(whole, g.double(), products)) < 1e-4


def test_on_the_whole_space_it_is_the_dense_solution() -> None:
    a, g = positive(), vector()
    for damping in (1e-3, 0.05, 2.0):
        found = damped(a, g, damping=damping, products=N)
        assert error(found.inverse_product(g), torch.linalg.solve(with_floor(a, found.floor), g.double())) < 1e-4


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_the_gradient_s_rounding_is_nothing_that_a_loose_damping_may_blow_up(scale: float) -> None:
    """As after many good updates: what rounding leaves of the gradient outside the space is no direction to go."""
    a, g = torch.diag(torch.linspace(0.5, 2.0, N)), scale * vector()
    found = damped(a, g, products=3)
    loose = []
    for found.tightness in (1e-8, 1e-11, 1e-14):
        loose.append(found.inverse_product(g))
        assert g @ loose[-1] > 0
    assert error(loose[-1], loose[0].double()) < 1e-3


@pytest.mark.parametrize("products", range(2, 9))
def test_each_product_brings_it_nearer_and_it_is_always_a_descent(products: int) -> None:
    a, g = positive(condition=1e4), vector()
    fewer, more = (damped(a, g, damping=1e-3, products=number) for number in (products - 1, products))
    whole = with_floor(a, more.floor)
    errors = [made.inverse_product(g).double() - torch.linalg.solve(whole, g.double()) for made in (fewer, more)]
    assert errors[1] @ whole @ errors[1] < errors[0] @ whole @ errors[0]
    assert g @ more.inverse_product(g) > 0


@pytest.mark.parametrize("tightness", [1.0, 30.0])
def test_outside_the_space_the_floor_is_all_that_is_known(tightness: float) -> None:
    a, g = positive(), vector()
    found, (basis, inner) = damped(a, g, products=4), krylov_space(Exact(a).product, g, 4, lambda matrix: False)
    found.tightness = tightness
    v = vector(2)
    v = v - basis.T @ (basis @ v)
    assert error(found.inverse_product(v), v.double() / found.floor) < 1e-4
    known = basis.double().T @ inner @ basis.double()
    any_other = vector(3)
    solution = torch.linalg.solve(with_floor(known, found.floor), any_other.double())
    assert error(found.inverse_product(any_other), solution) < 1e-4


@pytest.mark.parametrize("tightness", [0.1, 2.0, 64.0])
def test_the_tightness_changes_the_damping_without_a_product(tightness: float) -> None:
    a, g = positive(), vector()
    found, other = damped(a, g, damping=0.2, products=5), damped(a, g, damping=0.2 * tightness, products=5)
    found.tightness = tightness
    assert found.floor == pytest.approx(other.floor)
    assert found.report()["damping"] == found.floor
    assert error(found.inverse_product(g), other.inverse_product(g).double()) < 1e-5
    assert found.report()["products"] == found.products == 5


@pytest.mark.parametrize("tightness", [1.0, 5.0])
def test_the_bend_is_that_of_the_matrix_without_damping(tightness: float) -> None:
    a, g = positive(), vector()
    found = damped(a, g, products=4)
    found.tightness = tightness
    step = found.inverse_product(g)
    assert found.bend(step) == pytest.approx(float(step.double() @ a @ step.double()), rel=1e-4)
    assert found.bend(0.5 * step) == pytest.approx(0.25 * found.bend(step), rel=1e-5)


@pytest.mark.parametrize("tolerance", [0.3, 0.03, 0.003])
def test_the_tolerance_is_the_share_that_the_last_product_added(tolerance: float) -> None:
    a, g = positive(), vector()
    found = damped(a, g, damping=0.01, products=N, tolerance=tolerance)
    falls = [float(g @ damped(a, g, damping=0.01, products=k).inverse_product(g)) for k in range(1, found.products + 1)]
    added = [(later - before) / later for before, later in zip([0.0, *falls], falls, strict=False)]
    assert 1 < found.products < N
    assert added[-1] < tolerance
    assert min(added[:-1]) >= tolerance


def test_a_negative_curvature_from_rounding_counts_as_none() -> None:
    a = torch.diag(torch.tensor([4.0, 1.0, -1e-3]))
    g = torch.tensor([1.0, 1.0, 1.0])
    found = damped(a, g, damping=1e-6, products=3)
    expected = g.double() / (a.diag().double().clamp(min=0) + found.floor)
    assert error(found.inverse_product(g), expected) < 1e-2
    assert g @ found.inverse_product(g) > 0


@pytest.mark.parametrize("damping", [0.1, 3.0])
def test_the_damping_is_a_share_of_the_curvature_along_the_gradient(damping: float) -> None:
    a, g = positive(), vector()
    along = float(g.double() @ a @ g.double() / (g.double() @ g.double()))
    for scale in (1.0, 1e-4):  # the length of the gradient does not matter
        assert damped(a, scale * g, damping=damping).floor == pytest.approx(damping * along, rel=1e-5)


def test_without_curvature_along_the_gradient_the_floor_is_one() -> None:
    assert damped(torch.zeros(N, N), vector()).floor == 1.0
    assert damped(-positive(), vector()).floor == 1.0
    assert damped(positive(), torch.zeros(N)).inverse_product(torch.zeros(N)).isfinite().all()


def test_the_report_tells_the_damping_the_effort_and_the_largest_curvature() -> None:
    a, g = positive(), vector()
    few, many = (damped(a, g, products=number).report() for number in (2, N))
    assert few.keys() == {"damping", "products", "largest_curvature"}
    assert few["largest_curvature"] < many["largest_curvature"] == pytest.approx(100.0, rel=1e-4)


def test_of_a_model_it_is_the_inverse_of_the_damped_matrix() -> None:
    model = small_model()
    g, dense = vector(3, FlatParameters(model).size), gauss_newton(model)
    matrix = GaussNewton(FlatParameters(model), [(1.0, loss_on(model))])
    found = DampedGaussNewton(matrix, g, damping=0.5, products=20)
    along = float(g.double() @ dense @ g.double() / (g.double() @ g.double()))
    assert found.floor == pytest.approx(0.5 * along, rel=2e-3)
    solution = torch.linalg.solve(with_floor(dense, found.floor), g.double())
    assert error(found.inverse_product(g), solution) < 1e-2  # 1e-3 of each product, times the condition
    assert 5 < found.products == matrix.products <= 20
