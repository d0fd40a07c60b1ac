"""Losses as functions of the current parameters, with their gradients."""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..models.devices import input_device
from ..models.parameters import FlatParameters
from ..models.vectors import dot
from .cross_entropy import token_losses
from .encoding import Encoded
from .label_logits import LabelLogits, LabelModel, MicroBatch, micro_batches
from .passes import Passes

__all__ = ["NonFiniteError", "Objective", "TokenMeanLoss", "evaluation_mode", "power_below", "probe_batches"]

FEWEST_BATCHES = 4
"""Probe batches that a set should give at least: with three sets that makes 10 pairs and two to spare."""


class NonFiniteError(InputError):
    """A loss or gradient that is infinite or not a number."""


class Objective(Protocol):
    """A loss of the parameters as they stand."""

    def loss(self) -> float:
        """The loss; forward passes only."""
        ...

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """The loss and its gradient [n] in the order of the flat parameters."""
        ...


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout off for the block; afterwards every module is in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def power_below(count: int) -> float:
    """The largest power of 2 that is not above `count`.

    Of a mean over so many tokens, gradients in float16 round to nothing: losses are multiplied by this before their
    backward pass and gradients divided by it, which costs no accuracy in any type.
    """
    return 2.0 ** (count.bit_length() - 1)


class TokenMeanLoss:
    """Cross-entropy in nats per response token: the sum over all rows divided by the number of tokens of all rows.

    Being a mean over tokens of the whole set, neither it nor its gradient depends on the micro-batch size.
    Logits are computed for response tokens alone. Other losses of the same tokens override `batch_sum`.

    Attributes:
        model: the model whose loss it is.
        count: T, the number of response tokens (or whatever else the mean is over).
    """

    def __init__(
        self,
        model: Any,
        parameters: FlatParameters,
        rows: Sequence[Encoded],
        micro_batch_size: int,
        pad_id: int,
        name: str = "training",
        passes: Passes | None = None,
    ) -> None:
        """Holds the rows until they are asked for.

        Args:
            model: a causal LM or PEFT model.
            parameters: those to differentiate by.
            rows: encoded rows; prompts carry no loss.
            micro_batch_size: rows per forward pass.
            pad_id: any token id; padding is masked out.
            name: names the set in errors ("forget", "retain check").
            passes: counts the rows that the loss runs.
        """
        if not rows:
            raise InputError(f"The {name} set is empty. Give it at least one row.")
        self.model, self._parameters, self._name = model, parameters, name
        self._rows, self._size, self._pad = rows, micro_batch_size, pad_id
        self._passes = passes
        self.count = sum(row.targets for row in rows)
        self._run = LabelModel(model, passes)

    def __len__(self) -> int:
        return len(self._rows)

    def on_some(self, rows: int, seed: str) -> Self:
        """The same loss on at most that many of its rows, drawn by `seed`."""
        drawn = random.Random(seed).sample(list(self._rows), min(rows, len(self._rows)))
        return type(self)(self.model, self._parameters, drawn, self._size, self._pad, self._name, self._passes)

    def loss(self) -> float:
        """The loss, without gradients.

        Raises:
            NonFiniteError: it is infinite or not a number.
        """
        with evaluation_mode(self.model), torch.no_grad():
            total = math.fsum(float(self.batch_sum(batch)) for batch in self.batches)
        return self._finite(total / self.count, "loss")

    def row_losses(self) -> list[float]:
        """The mean over the response tokens of each row, from the shortest row to the longest, without gradients."""
        with evaluation_mode(self.model), torch.no_grad():
            found = [(self._row_sums(batch), batch.counts) for batch in self.batches]
        return [float(total) / count for sums, counts in found for total, count in zip(sums, counts, strict=True)]

    def loss_and_gradient(self) -> tuple[float, Tensor]:
        """The loss and its gradient [n]; gradients left on the parameters before are dropped.

        Raises:
            NonFiniteError: the loss or the gradient is infinite or not a number.
        """
        parts: list[Tensor] = []
        scale = power_below(self.count)
        self._parameters.zero_grad()
        with evaluation_mode(self.model), torch.enable_grad():
            for batch in self.batches:
                part = self.batch_sum(batch)
                (part / self.count * scale).backward()
                parts.append(part.detach())
        gradient = self._parameters.gradient().div_(scale)
        self._parameters.zero_grad()
        self._finite(dot(gradient, gradient) ** 0.5, "gradient norm")
        return self._finite(math.fsum(map(float, parts)) / self.count, "loss"), gradient

    def label_logits(self, batch: MicroBatch) -> LabelLogits:
        """Logits [n, V], targets [n] and rows [n] of a micro-batch's n labels: one forward pass of the model.

        The model is as it stands; call it within `as_base(model)` for the base model's logits.
        """
        return self._run(batch)

    @cached_property
    def batches(self) -> list[MicroBatch]:
        """All rows, as micro-batches."""
        return micro_batches(self._rows, self._size, self._pad, input_device(self.model))

    def _losses(self, batch: MicroBatch) -> Tensor:
        """Cross-entropy of each response token, [n] float64, row after row."""
        logits, targets, _ = self.label_logits(batch)
        return token_losses(logits, targets).double()

    def batch_sum(self, batch: MicroBatch) -> Tensor:
        """Summed cross-entropy of one micro-batch, a float64 scalar."""
        return self._losses(batch).sum()

    def _row_sums(self, batch: MicroBatch) -> Tensor:
        """Cross-entropy of each row of one micro-batch, summed over its response tokens: [rows] float64."""
        return torch.stack([row.sum() for row in self._losses(batch).split(batch.counts)])

    def _finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        raise NonFiniteError(
            f"The {what} on the {self._name} set ({len(self._rows)} rows) is {value}. Look for corrupt weights or "
            "rows; if the base model is float16, load it as bfloat16 or float32."
        )


def probe_batches(
    model: Any,
    parameters: FlatParameters,
    rows: Sequence[Encoded],
    *,
    size: int,
    micro_batch_size: int,
    pad_id: int,
    name: str,
    seed: str,
    limit: int,
    fewest: int = FEWEST_BATCHES,
    kind: type[TokenMeanLoss] = TokenMeanLoss,
    passes: Passes | None = None,
) -> list[TokenMeanLoss]:
    """Cuts rows, shuffled by `seed`, into at most `limit` probe batches, each an objective of its own.

    A batch has `size` rows, or fewer where that would leave fewer than `fewest` batches.
    """
    order = list(rows)
    random.Random(seed).shuffle(order)
    size = min(size, math.ceil(len(order) / fewest))
    parts = [order[begin : begin + size] for begin in range(0, len(order), size)][:limit]
    return [kind(model, parameters, part, micro_batch_size, pad_id, name, passes) for part in parts]
