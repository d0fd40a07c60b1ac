from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.models.parameters import FlatParameters
from torch import nn


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def test_the_vector_is_the_parameters_in_order(net: nn.Module) -> None:
    flat = FlatParameters(net)
    assert flat.size == 3 * 2 + 2 + 2 + 1
    assert flat.names == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert torch.equal(flat.get()[:6], net[0].weight.flatten())


def test_set_and_add(net: nn.Module) -> None:
    flat = FlatParameters(net)
    target = torch.arange(11.0)
    flat.set(target)
    assert torch.equal(flat.get(), target)
    flat.add(torch.ones(11), -0.5)
    assert torch.equal(flat.get(), target - 0.5)
    with pytest.raises(ValueError, match="11 entries"):
        flat.set(torch.zeros(10))


def test_gradients_are_zero_where_there_are_none(net: nn.Module) -> None:
    flat = FlatParameters(net)
    net[0](torch.ones(1, 3)).sum().backward()
    assert flat.gradient()[:8].abs().sum() > 0
    assert not flat.gradient()[8:].any()
    flat.zero_grad()
    assert not flat.gradient().any()


def test_frozen_parameters_are_left_out(net: nn.Module) -> None:
    net[0].requires_grad_(False)
    assert FlatParameters(net).names == ("1.weight", "1.bias")


def test_a_model_without_trainable_parameters_is_refused(net: nn.Module) -> None:
    with pytest.raises(InputError, match="None of the 4 parameters is trainable"):
        FlatParameters(net.requires_grad_(False))


def test_16_bit_parameters_are_refused(net: nn.Module) -> None:
    with pytest.raises(InputError, match=r"not float32, such as '0.weight'"):
        FlatParameters(net.bfloat16())


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_preserved_puts_every_bit_back(net: nn.Module, error: Any) -> None:
    flat = FlatParameters(net)
    before = [p.detach().clone() for p in net.parameters()]
    try:
        with flat.preserved():
            flat.add(torch.randn(11), 1e-3)
            if error:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert all(
        torch.equal(p.view(torch.int32), b.view(torch.int32)) for p, b in zip(net.parameters(), before, strict=True)
    )
