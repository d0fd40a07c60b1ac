"""The loss of negative preference optimization (Zhang et al., arXiv 2404.05868)."""

import torch
from torch import Tensor
from torch.nn import functional

from .label_logits import MicroBatch
from .objective import TokenMeanLoss, evaluation_mode
from .of_model import Losses

__all__ = ["NpoLoss"]


class NpoLoss(TokenMeanLoss):
    """-(2/beta) mean log sigmoid(-beta [log pi(y|x) - log pi_ref(y|x)]), over sequences, in nats.

    Log-probabilities are sums over the tokens of an answer. The reference is the model as it is when this is made,
    kept as numbers. The gradient is that of gradient ascent with row i weighted by
    2 pi^beta / (pi^beta + pi_ref^beta): 1 at the reference, 0 once the answer has become improbable.
    """

    def __init__(self, losses: Losses, name: str, beta: float) -> None:
        """Scores the rows of the set `name` under the reference.

        Args:
            losses: the model, as the reference, and its rows.
            name: the set that is to be forgotten.
            beta: inverse temperature; towards 0 the loss becomes that of gradient ascent, but for a constant.
        """
        rows = losses.rows[name]
        super().__init__(losses.model, losses.parameters, rows, losses.micro_batch_size, losses.pad, name)
        self.count = len(rows)  # the mean is over sequences
        self._beta = beta
        with evaluation_mode(losses.model), torch.no_grad():
            self._reference = {batch: self._row_sums(batch) for batch in self.batches}

    def batch_sum(self, batch: MicroBatch) -> Tensor:
        """The loss summed over the sequences of a micro-batch."""
        log_ratio = self._reference[batch] - self._row_sums(batch)  # log pi - log pi_ref, [rows]
        return (2 / self._beta * functional.softplus(self._beta * log_ratio, threshold=500)).sum()
