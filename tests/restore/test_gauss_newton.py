"""Gauss-Newton products against the matrix formed from Jacobians, and against Hessians where the two are the same."""

from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.divergence import BaseDivergence
from safebasin.restore.gauss_newton import GaussNewton
from safebasin.restore.objective import TokenMeanLoss
from safebasin.restore.parameters import FlatParameters
from safebasin.restore.prepare import trainable_adapter
from torch import Tensor

from .dense import OTHERS, cross_entropy, divergence, gauss_newton, hessian, loss_on, matrix, small_model


def close(found: Tensor, expected: Tensor, rtol: float = 1e-4) -> bool:
    """To `rtol` of the largest entry; everything is fp32 on one side and float64 on the other."""
    return bool((found.double() - expected).abs().max() <= rtol * expected.abs().max())


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return gauss_newton(small_model())


@pytest.fixture
def small() -> Any:
    return small_model()


def built(model: Any, *losses: tuple[float, TokenMeanLoss], keep: bool = False) -> GaussNewton:
    return GaussNewton(FlatParameters(model), losses or [(1.0, loss_on(model))], keep)


@pytest.mark.parametrize("keep", [False, True])
def test_products_are_those_of_the_dense_matrix(small: Any, expected: Tensor, keep: bool) -> None:
    found = matrix(built(small, keep=keep).product, len(expected))
    assert expected.abs().max() > 1e-2
    assert close(found, expected)
    assert close(found, found.T)
    eigenvalues = torch.linalg.eigvalsh((found + found.T) / 2)
    assert eigenvalues[0] > -1e-5 * eigenvalues[-1]
    assert eigenvalues[-1] > 0


def test_graphs_that_are_kept_change_nothing(small: Any, expected: Tensor) -> None:
    passes: list[int] = []
    small.get_base_model().lm_head.register_forward_hook(lambda *_: passes.append(1))
    v, kept, made = torch.randn(len(expected)), built(small, keep=True), built(small)
    assert len(passes) == 2
    first, again = kept.product(v), kept.product(v)
    assert len(passes) == 2
    assert torch.equal(first, made.product(v))
    assert torch.equal(first, again)
    assert len(passes) == 4
    assert (kept.products, made.products) == (2, 1)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(small: Any, expected: Tensor, micro: int) -> None:
    v = torch.randn(len(expected))
    assert close(built(small, (1.0, loss_on(small, micro=micro))).product(v), expected @ v.double())


def test_weights_are_those_of_the_losses(small: Any, expected: Tensor) -> None:
    v = torch.randn(len(expected))
    both = built(small, (0.3, loss_on(small)), (2.0, loss_on(small, OTHERS)))
    assert close(both.product(v), 0.3 * expected @ v.double() + 2.0 * gauss_newton(small, OTHERS) @ v.double())


@pytest.mark.parametrize("keep", [False, True])
def test_it_is_the_same_for_cross_entropy_and_for_a_divergence(small: Any, expected: Tensor, keep: bool) -> None:
    v = torch.randn(len(expected))
    kinds = [built(small, (1.0, loss_on(small, kind=kind)), keep=keep) for kind in (TokenMeanLoss, BaseDivergence)]
    assert torch.equal(kinds[0].product(v), kinds[1].product(v))


@pytest.mark.parametrize("keep", [False, True])
def test_products_stay_those_of_the_origin(small: Any, expected: Tensor, keep: bool) -> None:
    made, flat, v = built(small, keep=keep), FlatParameters(small), torch.randn(len(expected))
    at_origin = made.product(v)
    flat.add(torch.randn(flat.size))
    moved = flat.get().view(torch.int32).clone()
    assert close(made.product(v), at_origin.double(), 1e-6)
    assert not close(built(small).product(v), at_origin.double(), 0.1)
    assert torch.equal(flat.get().view(torch.int32), moved)


def test_parameters_stay_bit_identical_whatever_happens(small: Any, expected: Tensor) -> None:
    made, flat = built(small), FlatParameters(small)
    flat.add(torch.randn(flat.size))
    before, flags = flat.get().view(torch.int32).clone(), [p.requires_grad for p in small.parameters()]
    made.product(torch.ones(flat.size))
    hook = small.get_base_model().lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.product(torch.ones(flat.size))
    hook.remove()
    assert torch.equal(flat.get().view(torch.int32), before)
    assert [p.requires_grad for p in small.parameters()] == flags
    assert all(p.grad is None for p in small.parameters())


def test_logits_that_no_parameter_moves_have_no_curvature() -> None:
    """B is zero and A alone is trainable: the first derivative vanishes, and so does the matrix."""
    model = small_model(b_size=0.0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_A" in name)
    flat = FlatParameters(model)
    assert not built(model).product(torch.randn(flat.size)).any()


@pytest.mark.parametrize(("of", "kind"), [(cross_entropy, TokenMeanLoss), (divergence, BaseDivergence)])
def test_where_logits_are_linear_it_is_the_hessian(of: Any, kind: Any) -> None:
    """The logits are linear in the B of an adapter on the head."""
    model = small_model(["lm_head"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    exactly = hessian(of, model)
    found = matrix(built(model, (1.0, loss_on(model, kind=kind)), keep=True).product, len(exactly))
    assert exactly.abs().max() > 1e-2
    assert close(found, exactly)


def test_at_the_base_it_is_the_hessian_of_the_divergence() -> None:
    """The divergence's gradient by the logits is zero there, so what Gauss-Newton leaves out is nothing."""
    model = small_model(b_size=0.0)
    exactly = hessian(divergence, model)
    assert exactly.abs().max() > 1e-2
    assert close(matrix(built(model, keep=True).product, len(exactly)), exactly)


def test_elsewhere_it_is_not_the_hessian(small: Any, expected: Tensor) -> None:
    exactly = hessian(cross_entropy, small)
    assert torch.linalg.eigvalsh(exactly)[0] < -1e-3  # it has negative curvature, which Gauss-Newton never has
    assert not close(expected, exactly, 0.1)


def test_eager_attention_has_the_same_products(small: Any, expected: Tensor) -> None:
    v = torch.randn(len(expected))
    small.get_base_model().set_attn_implementation("eager")
    assert close(built(small).product(v), expected @ v.double())


def test_attention_without_second_derivatives_is_refused(small: Any) -> None:
    small.config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match=r"'flash_attention_2' has no second derivatives.*attn_implementation='sdpa'"):
        built(small)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_has_the_same_products(training: bool, keep: bool) -> None:
    """In training mode, with dropout, which must stay off where a backward pass computes a forward pass again."""
    model = small_model(lora_dropout=0.5)
    v = torch.randn(FlatParameters(model).size)
    expected = built(model).product(v)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train(training)
    with trainable_adapter(model) as flat:
        made = GaussNewton(flat, [(1.0, loss_on(model))], keep)
        assert close(made.product(v), expected.double(), 1e-5)
        assert close(made.product(v), expected.double(), 1e-5)


def test_reentrant_checkpointing_is_refused(small: Any) -> None:
    small.gradient_checkpointing_enable({"use_reentrant": True})
    with pytest.raises(InputError, match=r"Reentrant gradient checkpointing.*'use_reentrant': False"):
        built(small)
