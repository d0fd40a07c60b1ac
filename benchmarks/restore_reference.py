"""Algorithms 1 and 2 of the paper written down plainly, as a yardstick for time and memory.

Rows come in their given order and are padded to the longest of their whole set, all logits are computed, gradients are
accumulated over micro-batches, and the history is a list of pairs. There is no line search: the paper has none.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import torch
from safebasin.restore.losses.encoding import IGNORED, Encoded
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]
RATES = (0.001, 0.002, 0.005)


class PaddedSet:
    """A set of rows as one matrix of ids, one of masks and one of labels."""

    def __init__(self, rows: Sequence[Encoded], device: torch.device) -> None:
        width = max(len(row.ids) for row in rows)
        self.ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=device)
        self.mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in rows], device=device)
        self.labels = self.ids.masked_fill(self.mask == 0, IGNORED)
        for number, row in enumerate(rows):
            self.labels[number, : row.start] = IGNORED

    def gradient(self, model: Any, parameters: FlatParameters, rows: range, micro: int) -> tuple[float, Tensor]:
        """Mean loss over the tokens of some rows and its gradient [n], `micro` rows at a time."""
        parameters.zero_grad()
        total, count = 0.0, int((self.labels[rows.start : rows.stop] != IGNORED).sum())
        for begin in range(rows.start, rows.stop, micro):
            part = slice(begin, min(begin + micro, rows.stop))
            labels = self.labels[part]
            loss = model(input_ids=self.ids[part], attention_mask=self.mask[part], labels=labels, use_cache=False).loss
            loss = loss * int((labels != IGNORED).sum()) / count
            loss.backward()
            total += float(loss.detach())
        return total, parameters.gradient()


def history(
    model: Any, parameters: FlatParameters, sets: Sequence[PaddedSet], steps: int, size: int, micro: int
) -> Pairs:
    """Algorithm 1 with `steps` probe steps on batches of `size` rows."""
    pairs: Pairs = []
    radius, taken = 0.05, [0] * len(sets)
    for step, turn in zip(range(steps), cycle(range(len(sets))), strict=False):
        chosen, begin = sets[turn], taken[turn]
        rows = range(begin, min(begin + size, len(chosen.ids)))
        taken[turn] = rows.stop % len(chosen.ids)
        before, g = chosen.gradient(model, parameters, rows, micro)
        length = min(RATES[step // len(sets) % len(RATES)] * float(g.norm()), radius)
        start = parameters.get()
        parameters.add(g, -length / float(g.norm()))
        after, later = chosen.gradient(model, parameters, rows, micro)
        ratio = (before - after) / (length * float(g.norm()))
        if ratio < 0.25:
            radius /= 2
            parameters.set(start)
            continue
        radius *= 1.5 if ratio > 0.75 else 1.0
        s, y = parameters.get() - start, later - g
        if float(s @ y) > 0:  # the paper's 1e-6 would depend on the length of the step
            pairs.append((s / s.norm(), y / y.norm()))
    return pairs


def two_loops(pairs: Pairs, g: Tensor) -> Tensor:
    """H^-1 g."""
    q, shares = g.clone(), []
    for s, y in reversed(pairs):
        shares.append(s @ q / (s @ y))
        q -= shares[-1] * y
    if pairs:
        s, y = pairs[-1]
        q *= s @ y / (y @ y)
    for (s, y), share in zip(pairs, reversed(shares), strict=True):
        q += (share - y @ q / (s @ y)) * s
    return q


def restore_plainly(
    model: Any,
    parameters: FlatParameters,
    forget: Sequence[Encoded],
    probed: Sequence[Sequence[Encoded]],
    steps: Sequence[int],
    size: int,
    micro: int,
) -> None:
    """Algorithms 1 and 2 once for each number of probe steps in `steps`; moves the parameters."""
    ascended, *sets = (PaddedSet(rows, parameters.device) for rows in (forget, *probed))
    for count in steps:
        with parameters.preserved():
            pairs = history(model, parameters, sets, count, size, micro)
        _, g = ascended.gradient(model, parameters, range(len(forget)), micro)
        delta = two_loops(pairs, g)
        parameters.add(delta / delta.norm(), 0.01)
