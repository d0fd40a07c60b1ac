"""The loop that trains a world's models: small models and short rows, where every millisecond of a step counts."""

import math
import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from ...restore.losses.encoding import IGNORED, Encoded

__all__ = ["BATCH", "learn"]

BATCH = 32
"""Rows per step."""
WARMUP = 0.06
"""Share of the steps in which the learning rate rises; after them it falls along a cosine."""
PAD = 0
"""The tokenizer's `<pad>`. Rows are padded on the right, where causal attention never looks: no mask is needed."""


def learn(
    model: PreTrainedModel, rows: Sequence[Encoded], steps: int, rate: float, seed: int, on_step: Callable[[int], None]
) -> None:
    """Trains all parameters with AdamW on the response tokens of the rows, and leaves the model in eval mode.

    Args:
        model: a causal LM.
        rows: shuffled by the seed, anew for every pass.
        steps: optimizer steps.
        rate: the highest learning rate.
        seed: of the order of rows.
        on_step: called with the number of steps done.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, fused=True)
    drawn = _endless(rows, random.Random(seed))
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * _schedule(step, steps)
        batch = [next(drawn) for _ in range(BATCH)]
        tokens = sum(row.targets for row in batch)
        for part in _by_width(batch):
            (_loss(model, part) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        on_step(step + 1)
    model.eval()


def _schedule(step: int, steps: int) -> float:
    warmup = math.ceil(WARMUP * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def _endless(rows: Sequence[Encoded], draw: random.Random) -> Iterator[Encoded]:
    while True:
        yield from draw.sample(rows, len(rows))


def _by_width(batch: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """The short rows and the long ones of a batch: facts have a third of an answer's tokens."""
    half = max(len(row.ids) for row in batch) // 2
    for part in ([row for row in batch if len(row.ids) <= half], [row for row in batch if len(row.ids) > half]):
        if part:
            yield part


def _loss(model: PreTrainedModel, rows: Sequence[Encoded]) -> torch.Tensor:
    """The cross-entropy of the response tokens, summed."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[PAD] * (width - len(row.ids))] for row in rows])
    labels = torch.full_like(ids, IGNORED)
    for i, row in enumerate(rows):
        labels[i, row.start : len(row.ids)] = ids[i, row.start : len(row.ids)]
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")
