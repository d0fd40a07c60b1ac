"""How far a tuned model has moved from its base on the base's own refusals."""

import torch
from torch import Tensor

from ..models.reference import as_base
from .label_logits import MicroBatch
from .objective import TokenMeanLoss

__all__ = ["BaseDivergence"]

KEPT = 1 << 26
"""Log-probabilities of the base model kept between passes, at most: 256 MiB of them."""


class BaseDivergence(TokenMeanLoss):
    """KL(base || tuned) in nats per response token: sum over tokens of sum_v p0(v) log(p0(v)/p(v)), by their number.

    The base is the model before its fine-tuning (`as_base`). Its predictions are kept between passes where they are
    few, else computed again by one more forward pass for each.
    """

    _kept: dict[MicroBatch, Tensor] | None = None

    def _base(self, batch: MicroBatch) -> Tensor:
        """The base's log-probabilities, [n, V] float32."""
        if self._kept is not None and batch in self._kept:
            return self._kept[batch]
        with torch.no_grad(), as_base(self.model):
            found = self.label_logits(batch).logits.float().log_softmax(1)
        if self._kept is None:
            self._kept = {}
        room = KEPT - sum(each.numel() for each in self._kept.values())
        if found.numel() <= room and batch in self.batches:  # others, such as single rows, do not come again
            self._kept[batch] = found
        return found

    def batch_sum(self, batch: MicroBatch) -> Tensor:
        """The divergence summed over the tokens of a micro-batch, a float64 scalar."""
        base = self._base(batch)
        own = self.label_logits(batch).logits.float().log_softmax(1)
        return (base.exp() * (base - own)).sum(1).double().sum()
