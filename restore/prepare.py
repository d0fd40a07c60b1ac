"""Getting a PEFT model's LoRA parameters ready to be moved, and leaving all else as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from .parameters import FlatParameters

__all__ = ["copy_with_shared_base", "trainable_adapter"]


def _lora_parameters(model: Any) -> list[tuple[str, nn.Parameter]]:
    """The parameters of the one active LoRA adapter."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise InputError(f"Expected a PEFT model, got {type(model).__name__}. Load it with PeftModel.from_pretrained.")
    active = model.active_adapters
    if len(active) != 1:
        raise InputError(f"{len(active)} adapters are active: {active}. Activate one with set_adapter.")
    kind = model.peft_config[active[0]].peft_type
    if kind != "LORA":
        raise InputError(
            f"The active adapter '{active[0]}' is {str(kind).split('.')[-1]}. Only LoRA adapters can be restored."
        )
    if any(getattr(module, "merged", False) for module in model.modules()):
        raise InputError("The adapter is merged into the base model. Call unmerge_adapter() first.")
    parts = [(n, p) for n, p in model.named_parameters() if ".lora_" in n and active[0] in n.split(".")]
    if not parts:
        raise InputError(f"The active adapter '{active[0]}' has no LoRA parameters.")
    return parts


@contextmanager
def trainable_adapter(model: Any) -> Iterator[FlatParameters]:
    """Makes the active LoRA adapter's parameters fp32 and the only trainable ones, for the block.

    Afterwards every parameter requires gradients as before. Adapters of 16 bits stay fp32, as rounding back would
    lose small updates; after an exception they are of their own type again.

    Raises:
        InputError: the model is no PEFT model, or has no single, unmerged, active LoRA adapter.
    """
    chosen = _lora_parameters(model)
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    coarse = [(parameter, parameter.dtype) for _, parameter in chosen if parameter.dtype != torch.float32]
    if any(not parameter.isfinite().all() for _, parameter in chosen):
        raise InputError("The adapter's parameters are not all finite: fine-tuning diverged. Train it again.")
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    _cast([(parameter, torch.float32) for parameter, _ in coarse])
    for _, parameter in chosen:
        parameter.requires_grad_(True)
    try:
        yield FlatParameters(chosen)
    except BaseException:
        _cast(coarse)
        raise
    finally:
        for parameter, flag in flags:
            parameter.grad = None
            parameter.requires_grad_(flag)


def _cast(parameters: list[tuple[nn.Parameter, torch.dtype]]) -> None:
    for parameter, dtype in parameters:
        parameter.data = parameter.data.to(dtype)


def copy_with_shared_base(model: Any) -> Any:
    """Copies a PEFT model: its adapter's parameters are copied, all other tensors are shared with the original."""
    own = {id(parameter) for _, parameter in _lora_parameters(model)}
    shared = [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in own]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
