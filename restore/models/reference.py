"""The model before its fine-tuning, which a restoration goes back to: for as long as a block lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ...errors import InputError
from .adapter_files import check_same_base

__all__ = ["Before", "as_base", "remember_base"]

_BEFORE = "_before_fine_tuning"


class Before:
    """The weights that a whole model had before it was fine-tuned, beside those that it has."""

    def __init__(self, pairs: list[tuple[nn.Parameter, Tensor]]) -> None:
        self.pairs = pairs


def remember_base(model: Any, tuned: nn.Module, base: nn.Module) -> None:
    """Tells `as_base` the weights that a wholly fine-tuned model had before.

    Args:
        model: the PEFT model around `tuned`.
        tuned: the fine-tuned model, as it was loaded.
        base: the same model before its fine-tuning; its weights are kept in memory, unchanged.

    Raises:
        InputError: the two have not the same weights by name and shape.
    """
    before = dict(base.named_parameters())
    inside = {name.replace(".base_layer.", "."): parameter for name, parameter in tuned.named_parameters()}
    own = {name: parameter for name, parameter in inside.items() if ".lora_" not in name}
    wrong = sorted(set(before) ^ set(own)) or [name for name in own if own[name].shape != before[name].shape]
    if wrong:
        raise InputError(
            f"The fine-tuned model and its base are not the same model: {len(wrong)} weights differ in name or shape, "
            f"{wrong[0]} first. Give the base that it was fine-tuned from."
        )
    pairs = [(parameter, before[name].data.to(parameter.device)) for name, parameter in own.items()]
    setattr(model, _BEFORE, Before(pairs))


@contextmanager
def as_base(model: Any) -> Iterator[None]:
    """Within the block the model is the one before fine-tuning: its adapter is off, and whole weights are put back.

    Which parameters require gradients stays as it is.

    Raises:
        InputError: without its adapter the model is another one than that (`check_same_base`).
    """
    before: Before | None = getattr(model, _BEFORE, None)
    check_same_base(vars(model.peft_config[model.active_adapter]))
    with _same_flags(model), model.disable_adapter():
        if before is None:
            yield
            return
        tuned = [parameter.data for parameter, _ in before.pairs]
        try:
            for parameter, tensor in before.pairs:
                parameter.data = tensor
            yield
        finally:
            for (parameter, _), tensor in zip(before.pairs, tuned, strict=True):
                parameter.data = tensor


@contextmanager
def _same_flags(model: nn.Module) -> Iterator[None]:
    """Afterwards the same parameters require gradients: PEFT turns those of whole modules off and on."""
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)
