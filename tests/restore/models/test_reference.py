"""Within `as_base` a tuned model is its base; afterwards it is as it was, bit for bit."""

import copy
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.models.checkpoint import attach_zero_lora
from safebasin.restore.models.loading import load_base
from safebasin.restore.models.prepare import copy_with_shared_base
from safebasin.restore.models.reference import as_base, remember_base
from torch import Tensor

from ...conftest import DEVICE
from ..conftest import LORA

IDS = torch.arange(5, 25).unsqueeze(0)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS.to(model.device)).logits.cpu()
    return found


@pytest.fixture
def base(tiny_chat_model: Any) -> Any:
    return load_base(str(tiny_chat_model()), device=DEVICE)


@pytest.fixture
def tuned(base: Any) -> Any:
    """All weights of the base moved, and a LoRA adapter on it moved too."""
    whole = copy.deepcopy(base)
    torch.manual_seed(0)
    for parameter in whole.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    model = attach_zero_lora(whole, LORA, seed=0)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_(std=0.1)
    remember_base(model, whole, base)
    return model


def test_within_the_block_it_is_the_base(tuned: Any, base: Any) -> None:
    before = logits(tuned)
    with as_base(tuned):
        assert torch.equal(logits(tuned), logits(base))
    assert torch.equal(logits(tuned), before)
    assert not torch.equal(before, logits(base))


def test_whatever_ends_the_block_the_weights_come_back(tuned: Any) -> None:
    before = {name: parameter.clone() for name, parameter in tuned.named_parameters()}
    with pytest.raises(KeyboardInterrupt), as_base(tuned):
        raise KeyboardInterrupt
    assert all(torch.equal(parameter, before[name]) for name, parameter in tuned.named_parameters())
    assert not any(getattr(module, "disable_adapters", False) is True for module in tuned.modules())


def test_of_an_adapter_it_is_the_model_without_it(base: Any) -> None:
    expected = logits(base)
    model = attach_zero_lora(base, LORA, seed=0)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            parameter.data.normal_()
    with as_base(model):
        assert torch.equal(logits(model), expected)


def test_a_copy_with_a_shared_base_knows_it_too(tuned: Any, base: Any) -> None:
    copied = copy_with_shared_base(tuned)
    with as_base(copied):
        assert torch.equal(logits(copied), logits(base))
    assert torch.equal(logits(copied), logits(tuned))
    shared = dict(base.named_parameters())
    assert all(any(tensor.data_ptr() == p.data_ptr() for p in shared.values()) for _, tensor in remembered(copied))


def remembered(model: Any) -> Any:
    return model._before_fine_tuning.pairs


def test_another_model_is_no_base(tuned: Any, tiny_chat_model: Any) -> None:
    other = load_base(str(tiny_chat_model(hidden=16)), device=DEVICE)
    with pytest.raises(InputError, match=r"not the same model: .* differ in name or shape"):
        remember_base(tuned, tuned.get_base_model(), other)
