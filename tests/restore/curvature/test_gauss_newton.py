"""Gauss-Newton products against the matrix formed from Jacobians, and against Hessians where the two are the same."""

import copy
from typing import Any

import pytest
import torch
from safebasin.restore.curvature.gauss_newton import GaussNewton
from safebasin.restore.losses.divergence import BaseDivergence
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..dense import OTHERS, cross_entropy, divergence, gauss_newton, hessian, loss_on, matrix, small_model


def close(found: Tensor, expected: Tensor, rtol: float = 1e-2) -> bool:
    """To `rtol` of the largest entry: a difference quotient in fp32, off by up to 3e-3, beside float64 derivatives."""
    return bool((found.double() - expected).abs().max() <= rtol * expected.abs().max())


@pytest.fixture(scope="module")
def expected() -> Tensor:
    return gauss_newton(small_model())


@pytest.fixture
def small() -> Any:
    return small_model()


def built(model: Any, *losses: tuple[float, TokenMeanLoss]) -> GaussNewton:
    return GaussNewton(FlatParameters(model), losses or [(1.0, loss_on(model))])


def vector(model: Any) -> Tensor:
    return torch.randn(FlatParameters(model).size, generator=torch.Generator().manual_seed(0))


def test_products_are_those_of_the_dense_matrix(small: Any, expected: Tensor) -> None:
    found = matrix(built(small).product, len(expected))
    assert expected.abs().max() > 1e-2
    assert close(found, expected)
    assert close(found, found.T)
    eigenvalues = torch.linalg.eigvalsh((found + found.T) / 2)
    assert eigenvalues[0] > -1e-3 * eigenvalues[-1]
    assert eigenvalues[-1] > 0


@pytest.mark.parametrize("length", [1e-6, 1.0, 1e6])
def test_the_length_of_the_vector_does_not_matter(small: Any, expected: Tensor, length: float) -> None:
    """The step that is taken is as long as the parameters and the logits say."""
    v = vector(small)
    assert close(built(small).product(length * v) / length, expected @ v.double())


def test_of_nothing_it_is_nothing(small: Any) -> None:
    assert not built(small).product(torch.zeros(FlatParameters(small).size)).any()


def test_parameters_of_zero_can_be_stepped_from(small: Any) -> None:
    """The step is then as long as the square of the relative change."""
    flat = FlatParameters(small)
    flat.set(torch.zeros(flat.size))
    assert not built(small).product(vector(small)).any()  # neither factor moves the logits alone
    assert built(small).product(vector(small)).isfinite().all()


def test_a_product_is_two_forward_passes_and_one_backward_and_one_for_its_step(small: Any) -> None:
    """Over each micro-batch, that for the step over the first loss's first, which is run once more where it starts."""
    forward, backward, made = [], [], built(small, (1.0, loss_on(small)), (1.0, loss_on(small, OTHERS, micro=1)))
    inner = small.get_base_model().model

    def entered(module: Any, given: tuple[Tensor]) -> None:
        forward.append((len(given[0]), torch.is_grad_enabled()))

    inner.embed_tokens.register_forward_pre_hook(entered)
    inner.layers[-1].register_full_backward_hook(lambda *_: backward.append(1))
    each = [(rows, gradient) for rows in (2, 1, 1, 1) for gradient in (False, True)]
    flat, expected = FlatParameters(small), []
    for number, moved in enumerate((True, False, False, True), start=1):
        if moved:
            flat.set(1.5 * flat.get())
        made.product(vector(small))
        expected += [(2, False)] * (2 if moved else 1) + each
        assert forward == expected
        assert len(backward) == 4 * number
        assert made.products == number


def test_products_of_one_matrix_are_those_of_new_ones(small: Any) -> None:
    flat, v, kept = FlatParameters(small), vector(small), built(small)
    for scale in (1.0, 1.0, 1.5):
        flat.set(scale * flat.get())
        assert torch.equal(kept.product(v), built(small).product(v))


def test_the_parameters_stay_bit_for_bit_and_nothing_is_left_on_them(small: Any) -> None:
    flat, small = FlatParameters(small), small.train()
    before, flags = flat.get().view(torch.int32), [p.requires_grad for p in small.parameters()]
    built(small).product(vector(small))
    assert torch.equal(flat.get().view(torch.int32), before)
    assert all(parameter.grad is None for parameter in small.parameters())
    assert [p.requires_grad for p in small.parameters()] == flags
    assert all(module.training for module in small.modules())


@pytest.mark.parametrize("number", range(6))
def test_a_failing_pass_leaves_the_parameters_bit_for_bit(small: Any, number: int) -> None:
    flat, seen = FlatParameters(small), []

    def hook(*_: Any) -> None:
        seen.append(1)
        if len(seen) > number:
            raise KeyboardInterrupt

    before = flat.get().view(torch.int32)
    small.get_base_model().lm_head.register_forward_hook(hook)
    with pytest.raises(KeyboardInterrupt):
        built(small).product(vector(small))
    assert torch.equal(flat.get().view(torch.int32), before)


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(small: Any, expected: Tensor, micro: int) -> None:
    v = vector(small)
    assert close(built(small, (1.0, loss_on(small, micro=micro))).product(v), expected @ v.double())


def test_weights_are_those_of_the_losses(small: Any, expected: Tensor) -> None:
    v = vector(small)
    both = built(small, (0.3, loss_on(small)), (2.0, loss_on(small, OTHERS)))
    assert close(both.product(v), 0.3 * expected @ v.double() + 2.0 * gauss_newton(small, OTHERS) @ v.double())


def test_it_is_the_same_for_cross_entropy_and_for_a_divergence(small: Any) -> None:
    v = vector(small)
    kinds = [built(small, (1.0, loss_on(small, kind=kind))) for kind in (TokenMeanLoss, BaseDivergence)]
    assert torch.equal(kinds[0].product(v), kinds[1].product(v))


def test_products_are_those_at_the_parameters_as_they_stand(small: Any, expected: Tensor) -> None:
    made, flat, v = built(small), FlatParameters(small), vector(small)
    flat.add(0.1 * torch.ones(flat.size))
    found = made.product(v)
    assert close(found, gauss_newton(small) @ v.double())
    assert not close(found, expected @ v.double(), 0.1)


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
    found = matrix(built(model, (1.0, loss_on(model, kind=kind))).product, len(exactly))
    assert exactly.abs().max() > 1e-2
    assert close(found, exactly)


def test_at_the_base_it_is_the_hessian_of_the_divergence() -> None:
    """The divergence's gradient by the logits is zero there, so what Gauss-Newton leaves out is nothing."""
    model = small_model(b_size=0.0)
    exactly = hessian(divergence, model)
    assert exactly.abs().max() > 1e-2
    assert close(matrix(built(model).product, len(exactly)), exactly)


def test_elsewhere_it_is_not_the_hessian(small: Any, expected: Tensor) -> None:
    exactly = hessian(cross_entropy, small)
    assert torch.linalg.eigvalsh(exactly)[0] < -1e-3  # it has negative curvature, which Gauss-Newton never has
    assert not close(expected, exactly, 0.1)


class _Fused(torch.autograd.Function):
    """Attention as fused kernels have it: a backward pass that cannot be differentiated, nor taken forward."""

    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
        context.save_for_backward(query, key, value, mask)
        context.scale = scale
        return functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)

    @staticmethod
    def backward(context: Any, given: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("no second derivatives")
        *parts, mask = context.saved_tensors
        with torch.enable_grad():
            parts = [part.detach().requires_grad_() for part in parts]
            out = functional.scaled_dot_product_attention(*parts, mask, scale=context.scale)
        return (*torch.autograd.grad(out, parts, given), None, None)


def fused(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any) -> Any:
    """In the shape that transformers asks of an attention function."""
    key, value = (part.repeat_interleave(module.num_key_value_groups, 1) for part in (key, value))
    width = query.shape[2]
    mask = torch.ones(1, 1, width, width).tril().bool() if mask is None else mask
    return _Fused.apply(query, key, value, mask, scaling).transpose(1, 2).contiguous(), None


AttentionInterface.register("fused_for_tests", fused)
AttentionMaskInterface.register("fused_for_tests", sdpa_mask)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "fused_for_tests"])
def test_any_attention_has_the_same_products(small: Any, expected: Tensor, attention: str) -> None:
    v = vector(small)
    small.get_base_model().set_attn_implementation(attention)
    assert close(built(small).product(v), expected @ v.double())


def test_the_fused_attention_of_these_tests_has_no_second_derivatives(small: Any) -> None:
    small.get_base_model().set_attn_implementation("fused_for_tests")
    own = [p for p in small.parameters() if p.requires_grad]
    loss = small(input_ids=torch.tensor([[3, 4, 5, 6]])).logits.square().sum()
    torch.autograd.grad(loss, own, retain_graph=True)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(loss, own, create_graph=True)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_checkpointing_has_the_same_products(training: bool, reentrant: bool) -> None:
    """In training mode, with dropout, which must stay off where a backward pass computes a forward pass again."""
    model, runs = small_model(lora_dropout=0.5), []
    v = vector(model)
    expected = built(model).product(v)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.train(training)
    model.get_base_model().model.layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    with trainable_adapter(model) as flat:
        made = GaussNewton(flat, [(1.0, loss_on(model))])
        assert close(made.product(v), expected.double(), 1e-5)
        assert close(made.product(v), expected.double(), 1e-5)
    # One where it starts, one for each step; forward, forward, and forward again in the backward pass of two batches.
    assert len(runs) == 1 + 2 * (1 + 2 * 3)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("dtype", "least"), [(torch.float16, 0.99), (torch.bfloat16, 0.9)])
def test_on_a_16_bit_base_the_direction_is_kept(expected: Tensor, dtype: torch.dtype, least: float) -> None:
    """The step grows with the rounding error of the forward pass."""
    model = small_model()
    v = vector(model)
    for parameter in model.parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.to(dtype)
    found = built(model).product(v)
    assert found.dtype == torch.float32
    assert functional.cosine_similarity(found.double(), expected @ v.double(), dim=0) > least


def test_in_bfloat16_the_logits_and_not_the_parameters_alone_decide_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Along the gradient of an adapter as large as this one, sqrt(eps) of the parameters' length leads too far."""
    coarse = small_model(b_size=0.03)
    for name, parameter in coarse.named_parameters():
        parameter.data = parameter.data if parameter.requires_grad else parameter.data.bfloat16()
        parameter.data *= 3.0 if "lora_A" in name else 1.0
    exact = copy.deepcopy(coarse)
    for parameter in exact.parameters():
        parameter.data = parameter.data.float()
    gradient = loss_on(exact).loss_and_gradient()[1]
    expected = built(exact).product(gradient)

    def found() -> tuple[float, float]:
        """The cosine with float32's product, and the quadratic form as a share of float32's."""
        product = built(coarse).product(gradient)
        share = (gradient @ product) / (gradient @ expected)
        return float(functional.cosine_similarity(product, expected, dim=0)), float(share)

    cosine, share = found()
    assert cosine > 0.95
    assert share == pytest.approx(1.0, abs=0.2)
    monkeypatch.setattr(GaussNewton, "_step", lambda self, v, origin: self.relative_change * float(origin.norm()))
    cosine, share = found()
    assert cosine < 0.95
    assert share < 0.6
