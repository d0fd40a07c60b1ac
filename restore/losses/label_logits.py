"""A model's logits at the places that predict a label, and nowhere else."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from .encoding import IGNORED, Batch, Encoded, batches
from .passes import Passes

__all__ = ["LabelLogits", "LabelModel", "MicroBatch", "micro_batches"]


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """Rows of one forward pass, with the places of the tokens that predict their labels. Hashed by identity."""

    input_ids: Tensor
    """Token ids, [rows, width], padded on the right."""
    attention_mask: Tensor
    """1 for tokens, 0 for padding: [rows, width]."""
    places: Tensor
    """Where a label is predicted, that is one token before it, as indices into the flattened ids: [n]."""
    targets: Tensor
    """The labels, [n], row after row."""
    counts: tuple[int, ...]
    """Labels of each row; their sum is n."""

    @property
    def rows(self) -> Tensor:
        """The row to which each label belongs, [n]."""
        return self.places // self.input_ids.shape[1]


@dataclass(frozen=True)
class LabelLogits:
    """What a model predicts for the n labels of a micro-batch; unpacks as (logits, targets, rows)."""

    logits: Tensor
    """[n, V], in the model's own type: take `.float()` of it before any arithmetic."""
    targets: Tensor
    """Token ids, [n]."""
    rows: Tensor
    """Which row of the micro-batch each label belongs to, [n]."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.logits, self.targets, self.rows))


def micro_batches(
    rows: Sequence[Encoded], size: int, pad_id: int, device: torch.device | str = "cpu"
) -> list[MicroBatch]:
    """Cuts rows, sorted by length, into micro-batches of at most `size`."""
    return [_located(batch, torch.device(device)) for batch in batches(rows, size, pad_id)]


def _located(batch: Batch, device: torch.device) -> MicroBatch:
    carried = batch["labels"].roll(-1, 1) != IGNORED  # a prompt comes first, so nothing wraps around
    places = carried.flatten().nonzero().squeeze(1)
    return MicroBatch(
        batch["input_ids"].to(device),
        batch["attention_mask"].to(device),
        places.to(device),
        batch["labels"].flatten()[places + 1].to(device),
        tuple(carried.sum(1).tolist()),
    )


class LabelModel:
    """Runs a causal LM through its own forward, its output head on the predicting tokens alone.

    A hook on the head keeps their hidden states only, so that what the model does to its logits (scaling, soft
    capping) and where its modules live stay its own affair. Without such a head the logits run from the first
    predicting token of a micro-batch to its end, if the model can limit them at all.
    """

    def __init__(self, model: Any, passes: Passes | None = None) -> None:
        """Looks for the head of a causal LM or PEFT model; `passes` counts what is run."""
        self._model, self._passes = model, passes or Passes()
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._head: nn.Module | None = getattr(inner, "get_output_embeddings", lambda: None)()
        self._short = "logits_to_keep" in inspect.signature(inner.forward).parameters

    def __call__(self, batch: MicroBatch) -> LabelLogits:
        """One forward pass; where gradients are enabled, a backward pass is taken to follow."""
        if torch.is_grad_enabled():
            self._passes.gradient += len(batch.input_ids)
        else:
            self._passes.forward += len(batch.input_ids)
        ids, keep = batch.input_ids, {}
        if self._head is None and self._short:
            keep = {"logits_to_keep": ids.shape[1] - int((batch.places % ids.shape[1]).min())}
        with _only(self._head, batch):
            logits = self._model(input_ids=ids, attention_mask=batch.attention_mask, use_cache=False, **keep).logits
        if logits.shape[:2] == (1, len(batch.places)):  # n is less than the width, so even of one row not all
            logits = logits[0]
        else:
            self._head = None  # it was not called as a module on all hidden states
            logits = _pick(logits, batch)
        return LabelLogits(logits, batch.targets.to(logits.device), batch.rows.to(logits.device))


@contextmanager
def _only(head: nn.Module | None, batch: MicroBatch) -> Iterator[None]:
    """Within the block, the head sees [1, n, d] hidden states of the predicting tokens instead of all."""

    def select(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Tensor] | None:
        if len(inputs) != 1 or inputs[0].shape[:-1] != batch.input_ids.shape:
            return None
        hidden: Tensor = inputs[0]
        return (hidden.flatten(0, 1).index_select(0, batch.places.to(hidden.device))[None],)

    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _pick(logits: Tensor, batch: MicroBatch) -> Tensor:
    """Takes the label places [n, V] out of logits [rows, kept, V] of the last `kept` tokens."""
    if len(logits) != len(batch.input_ids):
        raise InputError(
            f"The model gives logits of shape {list(logits.shape)} for tokens of shape "
            f"{list(batch.input_ids.shape)}. Use a causal language model."
        )
    width, kept = batch.input_ids.shape[1], logits.shape[1]
    places = batch.places - (batch.rows + 1) * (width - kept)
    return logits.flatten(0, 1).index_select(0, places.to(logits.device))
