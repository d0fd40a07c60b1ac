"""The diagonal Fisher matrix against squared gradients of single rows in float64."""

from typing import Any

import pytest
import torch
from safebasin.restore.curvature.fisher import DiagonalFisher, fisher_diagonal
from safebasin.restore.losses.divergence import BaseDivergence
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter
from torch import Tensor

from ..dense import OTHERS, ROWS, cross_entropy, divergence, exact, flat_gradient, loss_on, small_model


@pytest.fixture
def small() -> Any:
    return small_model()


def brute_force(model: Any, of: Any = cross_entropy, rows: Any = ROWS) -> Tensor:
    twin = exact(model)
    squares = [flat_gradient(of(twin, row), twin) ** 2 for row in rows]
    return torch.stack(squares).sum(0) / sum(row.targets for row in rows)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize(("of", "kind"), [(cross_entropy, TokenMeanLoss), (divergence, BaseDivergence)])
def test_it_is_the_mean_square_of_the_rows_gradients(small: Any, of: Any, kind: Any, micro: int) -> None:
    """Rows of 3, 4 and 1 labels: what pads the short ones in a micro-batch of three takes no part."""
    expected = brute_force(small, of)
    found = fisher_diagonal(FlatParameters(small), loss_on(small, kind=kind, micro=micro))
    assert expected.max() > 1e-3
    assert torch.allclose(found.double(), expected, rtol=1e-3, atol=1e-6 * float(expected.max()))


def test_nothing_is_left_behind(small: Any) -> None:
    small.train()
    flat = FlatParameters(small)
    before, flags = flat.get(), [p.requires_grad for p in small.parameters()]
    fisher_diagonal(flat, loss_on(small, kind=BaseDivergence))
    assert torch.equal(flat.get(), before)
    assert [p.requires_grad for p in small.parameters()] == flags
    assert all(p.grad is None for p in small.parameters())
    assert all(module.training for module in small.modules())


def test_rows_alone_do_not_crowd_out_what_a_divergence_keeps(small: Any) -> None:
    loss = loss_on(small, kind=BaseDivergence, micro=3)
    fisher_diagonal(FlatParameters(small), loss)
    loss.loss()
    assert set(loss._kept) == set(loss.batches)


def test_the_inverse_divides_by_the_weighted_sum_and_the_damping(small: Any) -> None:
    flat = FlatParameters(small)
    g, v = torch.randn(2, flat.size, generator=torch.Generator().manual_seed(0))
    made = DiagonalFisher(flat, [(0.3, loss_on(small)), (2.0, loss_on(small, OTHERS))], g, damping=0.2)
    diagonal = 0.3 * brute_force(small) + 2.0 * brute_force(small, rows=OTHERS)
    floor = 0.2 * float((g.double() ** 2 * diagonal).sum() / (g.double() ** 2).sum())
    assert made.floor == pytest.approx(floor, rel=1e-3)
    assert torch.allclose(made.inverse_product(v).double(), v.double() / (diagonal + floor), rtol=1e-3)
    assert made.report() == pytest.approx({"damping": floor, "mean_curvature": float(diagonal.mean())}, rel=1e-3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_changes_nothing(small: Any, reentrant: bool) -> None:
    expected = fisher_diagonal(FlatParameters(small), loss_on(small))
    small.gradient_checkpointing_enable({"use_reentrant": reentrant})
    with trainable_adapter(small) as flat:
        found = fisher_diagonal(flat, loss_on(small))
    assert expected.max() > 1e-3
    assert torch.allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("tightness", [1.0, 8.0])
def test_the_tightness_multiplies_the_damping_and_leaves_the_bend(small: Any, tightness: float) -> None:
    flat = FlatParameters(small)
    g, v = torch.randn(2, flat.size, generator=torch.Generator().manual_seed(0))
    made, diagonal = DiagonalFisher(flat, [(1.0, loss_on(small))], g, damping=0.2), brute_force(small)
    floor = made.floor
    made.tightness = tightness
    assert made.floor == pytest.approx(tightness * floor)
    step = made.inverse_product(v)
    assert torch.allclose(step.double(), v.double() / (diagonal + tightness * floor), rtol=1e-3)
    assert made.bend(step) == pytest.approx(float(step.double() @ (diagonal * step)), rel=1e-3)
    assert made.report()["damping"] == made.floor


def test_a_vanished_gradient_leaves_it_positive(small: Any) -> None:
    flat = FlatParameters(small)
    made = DiagonalFisher(flat, [(1.0, loss_on(small))], torch.zeros(flat.size), damping=0.1)
    assert made.floor == 1.0
    assert made.inverse_product(torch.ones(flat.size)).min() > 0
