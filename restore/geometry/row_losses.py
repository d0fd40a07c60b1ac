"""The loss of each row by itself, with padding masked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..losses.cross_entropy import token_losses
from ..losses.encoding import Encoded
from ..losses.label_logits import LabelModel, micro_batches
from ..losses.objective import evaluation_mode

__all__ = ["RowLosses"]


class RowLosses:
    """L(x) = -1/T sum_t log p(x_t | x_<t) of each row x, over its T tokens that carry loss, in nats per token.

    The batches are made once, and serve any number of models that read the same token ids.
    """

    def __init__(self, rows: Sequence[Encoded], size: int, pad: int, device: torch.device | str = "cpu") -> None:
        """Cuts the rows, by length, into batches.

        Args:
            rows: encoded rows, at least one.
            size: rows of one forward pass; decides memory and speed, not the result.
            pad: any token id; padding is masked out.
            device: where the model takes its input.
        """
        self.counts = np.array([row.targets for row in rows])
        self._order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))  # as `batches` sorts them
        self.batches = micro_batches(rows, size, pad, device)

    def __len__(self) -> int:
        return len(self.counts)

    @torch.no_grad()
    def sums(self, model: Any) -> NDArray[np.float64]:
        """The cross-entropy of each row summed over its tokens, [n], in the order of the rows."""
        run, parts = LabelModel(model), []
        with evaluation_mode(model):
            for batch in self.batches:
                logits, targets, _ = run(batch)
                tokens = token_losses(logits, targets).double()
                parts += [float(row.sum()) for row in tokens.split(batch.counts)]
        found = np.empty(len(self))
        found[self._order] = parts
        return found

    def means(self, model: Any) -> NDArray[np.float64]:
        """L(x) of each row, [n], in the order of the rows."""
        return np.asarray(self.sums(model) / self.counts, np.float64)
