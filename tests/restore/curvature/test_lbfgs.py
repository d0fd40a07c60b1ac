"""The history against dense linear algebra."""

import pytest
import torch
from safebasin.restore.curvature.lbfgs import CurvatureHistory
from torch import Tensor

N = 12


def hessian(seed: int = 0) -> Tensor:
    """A random positive definite matrix with eigenvalues between 0.1 and 10."""
    torch.manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64))[0]
    return basis @ torch.diag(torch.logspace(-1, 1, N, dtype=torch.float64)) @ basis.T


def filled(steps: Tensor, a: Tensor, **options: object) -> CurvatureHistory:
    history = CurvatureHistory(len(steps), N, **{"powell": False, **options})  # type: ignore[arg-type]
    for s in steps:
        assert history.add(s.float(), (a @ s.double()).float()).accepted
    return history


def matrix(product: object) -> Tensor:
    return torch.stack([product(row).double() for row in torch.eye(N)])  # type: ignore[operator]


def dense_inverse(steps: Tensor, a: Tensor, gamma: float) -> Tensor:
    """The textbook recursion H <- (I - r s y')H(I - r y s') + r s s'."""
    h = gamma * torch.eye(N, dtype=torch.float64)
    for s in steps.double():
        y = a @ s
        r = 1 / (s @ y)
        v = torch.eye(N, dtype=torch.float64) - r * torch.outer(y, s)
        h = v.T @ h @ v + r * torch.outer(s, s)
    return h


def test_two_loops_equal_the_dense_recursion() -> None:
    a, steps = hessian(), torch.randn(5, N)
    history = filled(steps, a)
    expected = dense_inverse(steps, a, history.gamma)
    assert torch.allclose(matrix(history.inverse_product), expected, rtol=1e-4, atol=1e-5)


def test_b_is_the_inverse_of_h() -> None:
    history = filled(torch.randn(5, N), hessian())
    both = matrix(history.inverse_product) @ matrix(history.product)
    assert torch.allclose(both, torch.eye(N, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("tightness", [0.5, 4.0])
def test_the_tightness_multiplies_the_whole_matrix_and_leaves_the_bend(tightness: float) -> None:
    history, v = filled(torch.randn(5, N), hessian()), torch.randn(N)
    before = history.inverse_product(v)
    history.tightness = tightness
    found = history.inverse_product(v)
    assert torch.allclose(found, before / tightness, rtol=1e-4, atol=1e-6)
    b = matrix(history.product)
    assert history.bend(found) == pytest.approx(float(found.double() @ b @ found.double()), rel=1e-3)
    assert history.bend(before) == pytest.approx(float(v @ before), rel=1e-3)  # where nothing is added, it is v'Hv


def test_conjugate_steps_that_span_the_space_give_the_exact_inverse() -> None:
    a = hessian()
    lower = torch.linalg.cholesky(a)
    conjugate = torch.linalg.solve_triangular(lower.T, torch.linalg.qr(torch.randn(N, N).double())[0], upper=True).T
    assert torch.allclose(conjugate @ a @ conjugate.T, torch.eye(N).double(), atol=1e-9)
    history = filled(conjugate, a)
    g = torch.randn(N)
    assert torch.allclose(history.inverse_product(g).double(), torch.linalg.solve(a, g.double()), rtol=1e-3, atol=1e-4)
    assert torch.allclose(history.product(g).double(), a @ g.double(), rtol=1e-3, atol=1e-3)


def test_in_general_only_the_newest_pair_is_met() -> None:
    a, steps = hessian(), torch.randn(N, N)
    history = filled(steps, a)
    assert torch.allclose(history.inverse_product((a @ steps[-1].double()).float()), steps[-1], atol=1e-3)
    assert not torch.allclose(history.inverse_product((a @ steps[0].double()).float()), steps[0], atol=1e-1)


def test_joint_scaling_of_pairs_changes_nothing() -> None:
    a, steps = hessian(), torch.randn(5, N)
    scaled = steps * torch.logspace(-3, 1, 5)[:, None]
    one, other = filled(steps, a), filled(scaled, a)
    assert torch.allclose(matrix(one.inverse_product), matrix(other.inverse_product), rtol=1e-4, atol=1e-5)


def test_joint_normalisation_is_no_change_at_all() -> None:
    a, steps = hessian(), 1e-3 * torch.randn(5, N)
    history = filled(steps, a)
    assert torch.allclose(matrix(history.inverse_product), dense_inverse(steps, a, history.gamma), rtol=1e-4, atol=1e-5)


def test_separate_normalisation_multiplies_a_single_pair_by_its_curvature() -> None:
    a, step = hessian(), torch.randn(1, N)
    kappa = float((a @ step[0].double()).norm() / step[0].norm())
    joint, separate = filled(step, a), filled(step, a, normalize="separate")
    assert torch.allclose(matrix(separate.inverse_product), kappa * matrix(joint.inverse_product), rtol=1e-4, atol=1e-5)


def test_gamma_is_the_median_over_retain_pairs() -> None:
    history = CurvatureHistory(5, 2, powell=False)
    s = torch.tensor([1.0, 0.0])
    assert history.gamma == 1.0
    history.add(s, 100 * s, retain=False)
    assert history.gamma == pytest.approx(0.01)
    for curvature in (2.0, 4.0, 8.0):
        history.add(s, curvature * s)
    assert history.gamma == pytest.approx(0.25)


def test_the_oldest_pair_gives_way() -> None:
    a, steps = hessian(), torch.randn(5, N)
    small = CurvatureHistory(3, N, powell=False)
    for s in steps:
        small.add(s, (a @ s.double()).float())
    assert len(small) == 3
    kept = filled(steps[-3:], a)
    assert torch.allclose(matrix(small.inverse_product), matrix(kept.inverse_product), atol=1e-6)
    assert torch.allclose(matrix(small.product), matrix(kept.product), atol=1e-5)


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize(("cosine", "accepted"), [(1e-5, True), (1e-7, False), (0.0, False), (-0.5, False)])
def test_the_filter_does_not_depend_on_scale(length: float, cosine: float, accepted: bool) -> None:
    history = CurvatureHistory(2, 2, powell=False)
    y = torch.tensor([cosine, (1 - cosine**2) ** 0.5])
    outcome = history.add(length * torch.tensor([1.0, 0.0]), 3 * length * y)
    assert outcome.accepted is accepted
    assert history.rejected == (not accepted)
    assert outcome.reason == ("" if accepted else "curvature")


@pytest.mark.parametrize(("s", "y"), [(0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0)])
def test_degenerate_pairs_are_refused(s: float, y: float) -> None:
    outcome = CurvatureHistory(1, 3).add(torch.full((3,), s), torch.full((3,), y))
    assert (outcome.accepted, outcome.reason) == (False, "degenerate")


@pytest.mark.parametrize("curvature", [0.01, -3.0])
def test_powell_damping_keeps_a_fifth_of_the_curvature_predicted(curvature: float) -> None:
    history = CurvatureHistory(2, 2)
    history.add(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    s = torch.tensor([0.0, 1.0])
    outcome = history.add(s, curvature * s)
    assert (outcome.accepted, outcome.damped, history.damped, history.rejected) == (True, True, 1, 0)
    assert history.product(s) @ s == pytest.approx(0.2 * 2.0, rel=1e-5)


def test_enough_curvature_is_not_damped() -> None:
    history = CurvatureHistory(2, 2)
    history.add(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert not history.add(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5])).damped


def test_damping_leaves_separate_pairs_of_unit_length() -> None:
    history = CurvatureHistory(2, 2, normalize="separate")
    history.add(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    assert history.add(torch.tensor([0.0, 1.0]), torch.tensor([0.0, -3.0])).damped
    assert history.gamma == pytest.approx(1.0)


def test_h_stays_positive_definite_under_damping() -> None:
    torch.manual_seed(3)
    history = CurvatureHistory(6, N)
    for _ in range(12):
        history.add(torch.randn(N), torch.randn(N))
    eigenvalues = torch.linalg.eigvalsh(matrix(history.inverse_product))
    assert eigenvalues.min() > 0
