"""Getting a PEFT model's LoRA parameters ready to be moved, and leaving all else as it was."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ...errors import InputError
from .adapters import lora_parameters
from .checkpointing import checkpointing_in_evaluation
from .interrupts import interrupts_between_passes
from .parameters import FlatParameters
from .quantised import unpacked_weights
from .reference import Before

__all__ = ["copy_with_shared_base", "trainable_adapter"]


@contextmanager
def trainable_adapter(model: Any) -> Iterator[FlatParameters]:
    """Makes the active LoRA adapter's parameters fp32 and the only trainable ones, for the block.

    Afterwards every parameter requires gradients as before. Adapters of 16 bits stay fp32, as rounding back would
    lose small updates; after an exception that left them as they were they are of their own type again. Ctrl-C takes
    effect between forward passes. Gradient checkpointing, if enabled, acts in evaluation mode too.

    Raises:
        InputError: the model is no PEFT model, or has no single, unmerged, active LoRA adapter, or one that is not
            finite.
    """
    chosen = lora_parameters(model)
    if any(not parameter.isfinite().all() for _, parameter in chosen):
        raise InputError("The adapter's parameters are not all finite: fine-tuning diverged. Train it again.")
    with (
        interrupts_between_passes(model),
        unpacked_weights(model),
        checkpointing_in_evaluation(model),
        _only_trainable(model, chosen),
    ):
        yield FlatParameters(chosen)


@contextmanager
def _only_trainable(model: Any, chosen: list[tuple[str, nn.Parameter]]) -> Iterator[None]:
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    coarse = [(parameter, parameter.dtype) for _, parameter in chosen if parameter.dtype != torch.float32]
    try:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        _cast([(parameter, torch.float32) for parameter, _ in coarse])
        for _, parameter in chosen:
            parameter.requires_grad_(True)
        yield
    except BaseException:
        if all(torch.equal(parameter, parameter.to(dtype).to(parameter.dtype)) for parameter, dtype in coarse):
            _cast(coarse)
        raise
    finally:
        for name, parameter in model.named_parameters():  # by name, as offloading replaces parameters
            parameter.grad = None
            parameter.requires_grad_(flags[name])


def _cast(parameters: list[tuple[nn.Parameter, torch.dtype]]) -> None:
    for parameter, dtype in parameters:
        parameter.data = parameter.data.to(dtype)


def copy_with_shared_base(model: Any) -> Any:
    """Copies a PEFT model: its adapter's parameters are copied, all other tensors are shared with the original.

    So are the states in which bitsandbytes and accelerate hold quantised and offloaded weights, and a base's weights.
    """
    own = {id(parameter) for _, parameter in lora_parameters(model)}
    shared = [tensor for tensor in (*model.parameters(), *model.buffers()) if id(tensor) not in own]
    held = [value for module in model.modules() for value in vars(module).values() if _holds_weights(value)]
    return copy.deepcopy(model, {id(value): value for value in (*shared, *held)})


def _holds_weights(value: Any) -> bool:
    return isinstance(value, Before) or type(value).__module__.partition(".")[0] in ("accelerate", "bitsandbytes")
