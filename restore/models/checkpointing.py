"""Gradient checkpointing in evaluation mode, where transformers leaves it off."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["checkpointing_in_evaluation"]


@contextmanager
def checkpointing_in_evaluation(model: Any) -> Iterator[None]:
    """Lets the layers that the user has told to checkpoint do so in evaluation mode too, for the block.

    The modules stay in evaluation mode, so dropout stays off. Does nothing where checkpointing is not enabled.

    Args:
        model: a transformers or PEFT model. A warning is given where its layers are not those of transformers.
    """
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    if not layers and getattr(model, "is_gradient_checkpointing", False):
        warnings.warn(
            "Gradient checkpointing is enabled, but has no effect: losses are taken in evaluation mode, where "
            f"{type(model).__name__} does not checkpoint. Lower micro_batch_size if memory is short.",
            stacklevel=4,
        )
    own = [(layer, vars(layer).get("forward")) for layer in layers]
    try:
        for layer in layers:
            layer.forward = _checkpointed(layer, layer.forward)
        yield
    finally:
        for layer, forward in own:
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward


def _checkpointed(layer: Any, inner: Callable[..., Any]) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if layer.training or not torch.is_grad_enabled():
            return inner(*args, **kwargs)
        return layer._gradient_checkpointing_func(partial(inner, **kwargs), *args)

    return forward
