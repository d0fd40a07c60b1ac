"""How far a model has moved from another state of itself, on rows of which that state is to be kept or come back."""

from abc import abstractmethod
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from ..models.reference import as_base
from .label_logits import MicroBatch
from .objective import TokenMeanLoss

__all__ = ["BaseDivergence", "TunedDivergence"]

KEPT = 1 << 26
"""Log-probabilities of the reference kept between passes, at most: 256 MiB of them."""


class Divergence(TokenMeanLoss):
    """KL(reference || model) in nats per response token: sum_t sum_v p0(v) log(p0(v)/p(v)) over the number of tokens.

    The reference's predictions are kept between passes where they are few, else computed again by one more forward pass
    for each.
    """

    _kept: dict[MicroBatch, Tensor] | None = None

    @abstractmethod
    def _as_reference(self) -> AbstractContextManager[object]:
        """Within the block the model is the reference."""

    def _predicted(self, batch: MicroBatch) -> Tensor:
        """The reference's log-probabilities, [n, V] float32."""
        if self._kept is not None and batch in self._kept:
            return self._kept[batch]
        with torch.no_grad(), self._as_reference():
            found = self.label_logits(batch).logits.float().log_softmax(1)
        if self._kept is None:
            self._kept = {}
        room = KEPT - sum(each.numel() for each in self._kept.values())
        if found.numel() <= room and batch in self.batches:  # others, such as single rows, do not come again
            self._kept[batch] = found
        return found

    def batch_sum(self, batch: MicroBatch) -> Tensor:
        """The divergence summed over the tokens of a micro-batch, a float64 scalar."""
        reference = self._predicted(batch)
        own = self.label_logits(batch).logits.float().log_softmax(1)
        return (reference.exp() * (reference - own)).sum(1).double().sum()


class BaseDivergence(Divergence):
    """KL(base || model): the base is the model before its fine-tuning (`as_base`)."""

    def _as_reference(self) -> AbstractContextManager[object]:
        return as_base(self.model)


class TunedDivergence(Divergence):
    """KL(tuned || model): the tuned model is the one whose parameters were remembered (`FlatParameters.remember`).

    There it is 0, and so is its gradient: it asks for nothing, and says what a change to the model would cost. In
    expectation over the tuned model's own predictions it is by how much the cross-entropy rises.
    """

    def _as_reference(self) -> AbstractContextManager[object]:
        return self._parameters.as_remembered()
