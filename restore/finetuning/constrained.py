"""A LoRA adapter whose outputs keep out of given directions while it trains, and its export as an ordinary one.

W_eff = W + s C_S (B A - B_0 A_0) with C_S = I - U U' (SaLoRA, arXiv 2501.01765). The first part is a PEFT adapter with
a hook that applies C_S to what B puts out; the second is a frozen PEFT adapter. Base weights are never written.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..models.loading import new_adapter
from .subspace import initial_adapter, remove

__all__ = ["as_ordinary_adapter", "constrained", "linear_modules", "start_from_weights"]

TRAINED, FROZEN = "default", "residual"


def _layers(model: Any) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def linear_modules(model: Any) -> dict[str, nn.Linear]:
    """The base modules that a PEFT model adapts, by the name of their LoRA layer.

    Raises:
        InputError: one of them is not an ordinary linear module.
    """
    found = {name: layer.get_base_layer() for name, layer in _layers(model).items()}
    for name, module in found.items():
        if not isinstance(module, nn.Linear) or not module.weight.is_floating_point():
            raise InputError(f"'{name}' is a {type(module).__name__}. Only unquantised linear modules can be adapted.")
    return found


@torch.no_grad()
def start_from_weights(model: Any, safety: Mapping[str, Tensor], task: Mapping[str, Tensor]) -> dict[str, float]:
    """Sets A = A_0 and B = B_0 and adds the frozen adapter -C_S B_0 A_0, so that under `constrained` nothing changes.

    Args:
        model: a PEFT model with one fresh LoRA adapter; only that adapter stays trainable.
        safety: LoRA layer -> U_C.
        task: LoRA layer -> U_t.

    Returns:
        LoRA layer -> ||C_S B_0|| / ||B_0||: what the constraint leaves of the start. Near 0 the task's directions are
        those of the refusals.
    """
    config = copy.deepcopy(model.peft_config[TRAINED])
    config.lora_dropout = 0.0
    model.add_adapter(FROZEN, config)
    model.base_model.set_adapter([TRAINED, FROZEN])
    left = {}
    for name, layer in _layers(model).items():
        a, b = initial_adapter(layer.get_base_layer().weight, task[name], config.r)
        safe = remove(safety[name], b.T).T
        left[name] = float(safe.norm() / b.norm().clamp_min(torch.finfo(b.dtype).tiny))
        for adapter, values in ((TRAINED, b), (FROZEN, -safe)):
            layer.lora_A[adapter].weight.copy_(a)
            layer.lora_B[adapter].weight.copy_(values)
        layer.lora_A[FROZEN].requires_grad_(False)
        layer.lora_B[FROZEN].requires_grad_(False)
    return left


@contextmanager
def constrained(model: Any, safety: Mapping[str, Tensor]) -> Iterator[None]:
    """For the block, the trained adapter's update is s C_S B A: gradients reach B through C_S."""

    def hook(directions: Tensor) -> Any:
        return lambda module, inputs, output: remove(directions, output)

    handles = [
        layer.lora_B[TRAINED].register_forward_hook(hook(safety[name])) for name, layer in _layers(model).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def as_ordinary_adapter(model: Any, safety: Mapping[str, Tensor], seed: int) -> Any:
    """The same function as one plain LoRA of twice the rank on the original weights: no hook, no other base.

    A_2 = [A; A_0], B_2 = [C_S B, -C_S B_0]; rank and alpha are doubled, so the scale alpha / rank stays.

    Returns:
        A new PEFT model on the base model of `model`, which must not be used any more.
    """
    config = model.peft_config[TRAINED]
    weights = {
        name: (
            torch.cat([layer.lora_A[TRAINED].weight, layer.lora_A[FROZEN].weight]),
            torch.cat([remove(safety[name], layer.lora_B[TRAINED].weight.T).T, layer.lora_B[FROZEN].weight], dim=1),
        )
        for name, layer in _layers(model).items()
    }
    lora = {
        "rank": 2 * config.r, "alpha": 2 * config.lora_alpha, "dropout": config.lora_dropout,
        "target_modules": sorted(config.target_modules),
    }  # fmt: skip
    merged = new_adapter(model.unload(), lora, seed, config.revision)
    for name, layer in _layers(merged).items():
        layer.lora_A[TRAINED].weight.copy_(weights[name][0])
        layer.lora_B[TRAINED].weight.copy_(weights[name][1])
    return merged.eval()
