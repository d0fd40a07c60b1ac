"""An adapter merged into the weights of its model: where that is the same model, and what rounding takes of it."""

import warnings
from typing import Any

import torch
from torch import nn

from ...errors import InputError

__all__ = ["check_untied", "merged", "rounded_away"]

NOTICED = 0.1
"""Share of the update that rounding may take before a warning."""


def merged(model: Any) -> Any:
    """The model of a PEFT model with its active adapter in the weights; the PEFT model is used up.

    Raises:
        InputError: as `check_untied`.
    """
    check_untied(model)
    if (lost := rounded_away(model)) > NOTICED:
        warnings.warn(
            f"Merging rounds {100 * lost:.0f} % of the adapter's update away: it is small beside the "
            f"{str(next(model.parameters()).dtype).removeprefix('torch.')} weights. The merged model is not quite the "
            "one that was measured. Load the base as float32, or keep the adapter.",
            stacklevel=2,
        )
    return model.merge_and_unload()


def check_untied(model: Any) -> None:
    """Refuses adapters of a table that is both embedding and output head: merged at one end, they act at the other too.

    Raises:
        InputError: the active adapter changes one end of such a table by LoRA.
    """
    inner = model.get_base_model()
    ends = [inner.get_input_embeddings(), inner.get_output_embeddings()]
    if None in ends or _table(ends[0]) is not _table(ends[1]):
        return
    if any(_is_adapted(end, model.active_adapter) for end in ends):
        raise InputError(
            "The adapter changes the embedding or the output head by LoRA, and the model uses one table for both: "
            "merged, the change would act at the other end too. Keep the adapter, or train it without these modules."
        )


def _table(module: nn.Module) -> Any:
    return getattr(getattr(module, "base_layer", module), "weight", None)


def _is_adapted(module: nn.Module, adapter: str) -> bool:
    return any(adapter in getattr(module, name, ()) for name in ("lora_A", "lora_embedding_A"))


@torch.no_grad()
def rounded_away(model: Any) -> float:
    """|round(W + D) - W - D| / |D| over all weights W that the active LoRA adapter changes by D; 0 without a change."""
    adapter, lost, whole = model.active_adapter, 0.0, 0.0
    for module in model.modules():
        if not hasattr(module, "base_layer") or not _is_adapted(module, adapter):
            continue
        weight, change = module.base_layer.weight, module.get_delta_weight(adapter).float()
        kept = (weight.float() + change).to(weight.dtype).float() - weight.float()
        lost += float((kept - change).square().sum())
        whole += float(change.square().sum())
    return (lost / whole) ** 0.5 if whole else 0.0
