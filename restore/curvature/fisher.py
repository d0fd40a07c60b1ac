"""The diagonal empirical Fisher matrix: squared gradients of single rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..losses.label_logits import MicroBatch
from ..losses.objective import TokenMeanLoss, evaluation_mode
from ..models.parameters import FlatParameters
from ..models.vectors import dot

__all__ = ["DiagonalFisher", "fisher_diagonal"]


def fisher_diagonal(parameters: FlatParameters, loss: TokenMeanLoss) -> Tensor:
    """The diagonal of (1/T) sum_i g_i g_i', g_i the gradient of row i's summed loss, T the tokens of all rows: [n].

    One forward and backward pass per row. It is the curvature of the token-mean loss where the model is calibrated on
    whole rows, and a rough guess elsewhere (Kunstner, Balles & Hennig 2019).

    Args:
        parameters: theta, [n].
        loss: whose curvature is wanted.
    """
    total = torch.zeros(parameters.size, dtype=torch.float32, device=parameters.device)
    with evaluation_mode(loss.model), torch.enable_grad():
        for batch in loss.batches:
            for row in range(len(batch.counts)):
                parameters.zero_grad()
                loss.batch_sum(_row(batch, row)).backward()
                total += parameters.gradient().square_()
    parameters.zero_grad()
    return total / loss.count


def _row(batch: MicroBatch, row: int) -> MicroBatch:
    """One row of a micro-batch, without the padding that others need."""
    own, width = batch.rows == row, int(batch.attention_mask[row].sum())
    return MicroBatch(
        batch.input_ids[row : row + 1, :width],
        batch.attention_mask[row : row + 1, :width],
        batch.places[own] - row * batch.input_ids.shape[1],
        batch.targets[own],
        (batch.counts[row],),
    )


class DiagonalFisher:
    """The sum of weighted Fisher diagonals plus damping, as a `Curvature`."""

    def __init__(
        self,
        parameters: FlatParameters,
        losses: Sequence[tuple[float, TokenMeanLoss]],
        gradient: Tensor,
        damping: float,
    ) -> None:
        """Estimates the curvature at the parameters as they stand.

        Args:
            parameters: theta, [n].
            losses: weights, at least 0, and losses.
            gradient: [n]; the direction whose curvature `damping` is a share of.
            damping: added curvature, as a share of that along the gradient.
        """
        parts = [fisher_diagonal(parameters, loss).mul_(weight) for weight, loss in losses]
        self._diagonal = torch.stack(parts).sum(0)
        along = dot(gradient, self._diagonal * gradient) / max(dot(gradient, gradient), 1e-30)
        self._floor = damping * along or 1.0
        self.tightness = 1.0

    @property
    def floor(self) -> float:
        """The damping as it stands."""
        return self._floor * self.tightness

    def inverse_product(self, v: Tensor) -> Tensor:
        """V / (diagonal + floor), [n]."""
        return v / (self._diagonal + self.floor)

    def bend(self, step: Tensor) -> float:
        """S'Ds for a step s, D the diagonal without damping."""
        return dot(step, self._diagonal * step)

    def report(self) -> dict[str, float]:
        """The damping, and the mean of the diagonal."""
        return {"damping": self.floor, "mean_curvature": float(self._diagonal.mean())}
