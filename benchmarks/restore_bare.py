"""Bare forward and backward passes of given micro-batches, and runs timed in turns."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from safebasin.restore.losses.encoding import IGNORED
from safebasin.restore.losses.label_logits import MicroBatch
from torch import Tensor
from torch.nn.functional import cross_entropy

Run = Callable[[], object]
Loss = Callable[[Any, MicroBatch], Tensor]


def loss_over_all_logits(model: Any, batch: MicroBatch) -> Tensor:
    """The model's own loss."""
    labels = torch.full_like(batch.input_ids, IGNORED)
    labels.view(-1)[batch.places + 1] = batch.targets
    given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
    loss: Tensor = model(**given, use_cache=False).loss
    return loss


def loss_at_labels(model: Any, batch: MicroBatch) -> Tensor:
    """The same loss, the head run on the predicting tokens alone."""
    inner = model.get_base_model()
    hidden = inner.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return cross_entropy(inner.lm_head(hidden.last_hidden_state.flatten(0, 1)[batch.places]), batch.targets)


def bare_passes(model: Any, passes: Sequence[tuple[MicroBatch, bool]], loss: Loss) -> None:
    """The passes and nothing else; gradients add up on the parameters, which are cleared at the end."""
    for batch, gradient in passes:
        with torch.set_grad_enabled(gradient):
            value = loss(model, batch)
            if gradient:
                value.backward()
    model.zero_grad()


def in_turns(runs: Mapping[str, Run], repetitions: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds, and seconds of processor time, of each run, the order turning by one in each repetition.

    On cores shared with others the time of the processor is the steadier of the two. Each run is told on stderr.
    """
    wall: dict[str, list[float]] = {name: [] for name in runs}
    used: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for repetition in range(repetitions):
        shift = repetition % len(names)
        for name in names[shift:] + names[:shift]:
            begin, spent = time.perf_counter(), time.process_time()
            runs[name]()
            wall[name].append(time.perf_counter() - begin)
            used[name].append(time.process_time() - spent)
            print(f"{name}: {wall[name][-1]:.2f} s, processor {used[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return wall, used


def ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Median, least and most of the ratios within each repetition."""
    found = [one / other for one, other in zip(over, under, strict=True)]
    return {"median": median(found), "least": min(found), "most": max(found)}
