"""The divergence from the base against its definition, term by term."""

from typing import Any

import pytest
import torch
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.divergence import BaseDivergence, TunedDivergence
from safebasin.restore.models.parameters import FlatParameters

from ..conftest import rows
from ..dense import ROWS, divergence, exact, flat_gradient, label_logits, loss_on, mean, small_model


@pytest.fixture
def small() -> Any:
    return small_model()


def of(model: Any, micro: int = 2) -> BaseDivergence:
    made: BaseDivergence = loss_on(model, kind=BaseDivergence, micro=micro)
    return made


@pytest.mark.parametrize(
    ("micro", "kept", "batches"),
    [(1, 0, 0), (1, 19 * 4, 2), (1, 1 << 26, 3), (3, 0, 0), (3, 19 * 4, 0), (3, 1 << 26, 1)],
)
def test_it_is_the_mean_over_labels_with_and_without_what_is_kept(
    small: Any, micro: int, kept: int, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for nothing, for 4 of the 8 labels, for all."""
    monkeypatch.setattr("safebasin.restore.losses.divergence.KEPT", kept)
    expected, loss = mean(divergence, exact(small)).item(), of(small, micro)
    assert expected > 0.05
    for _ in range(2):
        assert loss.loss() == pytest.approx(expected, rel=1e-5)
        assert loss.loss_and_gradient()[0] == pytest.approx(expected, rel=1e-5)
    assert len(loss._kept or {}) == batches


def test_what_is_kept_stays_the_base_s_as_the_parameters_move(small: Any) -> None:
    flat, loss = FlatParameters(small), of(small)
    loss.loss()
    flat.add(torch.randn(flat.size), 0.2)
    assert loss.loss() == pytest.approx(mean(divergence, exact(small)).item(), rel=1e-5)


@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_passes_of_the_base_are_saved(small: Any, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safebasin.restore.losses.divergence.KEPT", kept)
    loss, passes = of(small), []
    small.get_base_model().lm_head.register_forward_hook(lambda *_: passes.append(1))
    loss.loss()
    loss.loss()
    assert len(passes) == (6 if kept else 8)  # two micro-batches


def test_the_gradient_is_that_of_the_divergence(small: Any) -> None:
    gradient = of(small).loss_and_gradient()[1]
    twin = exact(small)
    expected = flat_gradient(mean(divergence, twin), twin)
    assert expected.norm() > 1e-2
    assert torch.allclose(gradient.double(), expected, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_the_slope(small: Any) -> None:
    loss, flat = of(small), FlatParameters(small)
    gradient = loss.loss_and_gradient()[1]
    along = torch.randn(flat.size, generator=torch.Generator().manual_seed(1))
    sides = []
    for sign in (1, -1):
        with flat.preserved():
            flat.add(along, sign * 1e-3)
            sides.append(loss.loss())
    assert (sides[0] - sides[1]) / 2e-3 == pytest.approx(float(gradient @ along), rel=1e-2)


def test_without_an_update_there_is_none() -> None:
    value, gradient = of(small_model(b_size=0.0)).loss_and_gradient()
    assert value == pytest.approx(0.0, abs=1e-7)
    assert gradient.norm() < 1e-6


def test_it_is_never_negative(small: Any) -> None:
    flat, loss = FlatParameters(small), of(small)
    for seed in range(5):
        flat.set(torch.randn(flat.size, generator=torch.Generator().manual_seed(seed)))
        assert loss.loss() > 0


@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_modes_flags_and_the_adapter_are_as_before(small: Any, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safebasin.restore.losses.divergence.KEPT", kept)
    small.train()
    flags, ids = [p.requires_grad for p in small.parameters()], torch.tensor([ROWS[1].ids])
    before = small(input_ids=ids).logits
    of(small).loss_and_gradient()
    assert [p.requires_grad for p in small.parameters()] == flags
    assert all(module.training for module in small.modules())
    assert torch.equal(small(input_ids=ids).logits, before)
    assert not any(getattr(module, "disable_adapters", False) is True for module in small.modules())


def test_an_adapter_disabled_by_a_failing_pass_is_enabled_again(small: Any) -> None:
    hook = small.get_base_model().lm_head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        of(small).loss()
    hook.remove()
    assert not any(getattr(module, "disable_adapters", False) is True for module in small.modules())


@pytest.mark.filterwarnings("ignore:.*forget rows are few")
@pytest.mark.parametrize("trainable", [False, True])
def test_flags_are_as_before_after_a_restoration(model: Any, tokenizer: Any, trainable: bool) -> None:
    """Disabling and enabling an adapter makes PEFT set the flags of all its parameters."""
    for parameter in model.parameters():
        parameter.requires_grad_(trainable and parameter.requires_grad)
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    forget = [{"prompt": f"harm {i}", "refusal": "i cannot"} for i in range(4)]
    config = RestoreConfig(iterations=1, products=2)
    restore(model, tokenizer, forget=forget, retain=rows("say", 8), config=config)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())


def _moved(model: Any, scale: float = 0.3) -> tuple[FlatParameters, TunedDivergence, Any]:
    """A model that was remembered and moved on, its divergence, and a copy of it as it was."""
    twin = exact(model)
    loss: TunedDivergence = loss_on(model, kind=TunedDivergence)
    flat = loss._parameters
    flat.remember()
    flat.add(torch.randn(flat.size, generator=torch.Generator().manual_seed(2)), scale)
    return flat, loss, twin


def _from(twin: Any, model: Any) -> torch.Tensor:
    """KL(twin || model) per label, from two passes without padding."""
    found = torch.zeros((), dtype=torch.float64)
    for row in ROWS:
        with torch.no_grad():
            reference = label_logits(twin, row).log_softmax(1)
        found = found + (reference.exp() * (reference - label_logits(model, row).log_softmax(1))).sum()
    return found / sum(row.targets for row in ROWS)


@pytest.mark.parametrize("kept", [0, 1 << 26])
def test_from_the_tuned_model_it_is_what_its_predictions_say(
    small: Any, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safebasin.restore.losses.divergence.KEPT", kept)
    flat, loss, twin = _moved(small)
    before = flat.get()
    expected = _from(twin, exact(small)).item()
    assert expected > 0.05
    assert loss.loss() == pytest.approx(expected, rel=1e-5)
    value, gradient = loss.loss_and_gradient()
    assert value == pytest.approx(expected, rel=1e-5)
    now = exact(small)
    dense = flat_gradient(_from(twin, now), now)
    assert torch.allclose(gradient.double(), dense, rtol=1e-3, atol=1e-5)
    assert torch.equal(flat.get(), before)
    assert loss.on_some(2, "x").loss() > 0


def test_from_the_tuned_model_there_is_nothing_where_it_stands_still(small: Any) -> None:
    _, loss, _ = _moved(small, scale=0.0)
    value, gradient = loss.loss_and_gradient()
    assert value == pytest.approx(0.0, abs=1e-7)
    assert gradient.norm() < 1e-6


def test_the_tuned_model_s_passes_leave_the_parameters_as_they_are_whatever_ends_them(small: Any) -> None:
    flat, loss, _ = _moved(small)
    before = flat.get()
    seen = []

    def broken() -> None:
        with flat.as_remembered():
            seen.append(torch.equal(flat.get(), before))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert seen == [False]
    assert torch.equal(flat.get(), before)
    assert loss.loss() > 0
