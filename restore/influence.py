"""The influence update and the line search that keeps the retain loss within bounds (equations 2, 4 and 5)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..errors import InputError
from .lbfgs import CurvatureHistory, dot
from .objective import NonFiniteError, Objective
from .parameters import FlatParameters

__all__ = ["Backtrack", "InfluenceStep", "backtrack", "influence_step", "loss_or_infinity"]


@dataclass(frozen=True)
class InfluenceStep:
    """An update of the parameters that raises the forget loss."""

    step: Tensor
    """The update, [n]."""
    gain: float
    """g'H^-1 g, positive."""
    direction_norm: float
    """|H^-1 g|, before scaling."""
    norm: float
    """|step|."""
    predicted: float
    """g'step: the first-order rise of the forget loss, in nats per token."""


def influence_step(
    history: CurvatureHistory,
    gradient: Tensor,
    trust_radius: float,
    scale: Literal["trust", "euclid"] = "trust",
    max_update: float = float("inf"),
) -> InfluenceStep:
    """Scales Delta = +H^-1 g, the ascent of the forget loss in the metric of the curvature (equation 5).

    Algorithm 2 writes Delta = -H^-1 g, which would lower the loss on harmful answers; equations 2, 4 and 5 ascend.

    Args:
        history: gives the product with H^-1.
        gradient: g, the gradient of the forget loss, [n].
        trust_radius: delta of equation 4. With scale "trust" the step is delta * Delta / sqrt(g'Delta), its solution.
        scale: "euclid" makes the step max_update * Delta / |Delta| instead, as Algorithm 2 does.
        max_update: Euclidean length that the step may not exceed.

    Raises:
        InputError: the forget loss would not rise along Delta to first order.
    """
    delta = history.inverse_product(gradient)
    gain, length = dot(gradient, delta), dot(delta, delta) ** 0.5
    if not gain > 0 or not length > 0:
        raise InputError(
            f"The forget loss does not rise along the influence update (first-order gain {gain:g}, gradient norm "
            f"{dot(gradient, gradient) ** 0.5:g}). Give forget rows that the model complies with."
        )
    factor = max_update / length if scale == "euclid" else min(trust_radius / gain**0.5, max_update / length)
    return InfluenceStep(delta * factor, gain, length, length * factor, gain * factor)


@dataclass(frozen=True)
class Backtrack:
    """Where a line search ended."""

    accepted: bool
    factor: float
    """Share of the step taken; 0 where it was given up."""
    halvings: int
    retain_loss: float
    """On the retain check set, at the parameters as they now are where accepted; else at the last trial."""


def backtrack(
    parameters: FlatParameters,
    step: Tensor,
    retain_check: Objective,
    limit: float,
    halvings: int = 8,
    shrink: float = 0.0,
) -> Backtrack:
    """Takes the first of step, step/2, step/4, ... that leaves the retain loss at or below `limit`.

    The trial point is theta + t*step - shrink*theta. Where none will do, and after an exception, the parameters are
    as they were, bit for bit.

    Args:
        parameters: theta, [n]; moved where a trial is accepted.
        step: the update, [n].
        retain_check: loss on held-out retain rows.
        limit: the highest loss allowed (equation 2: the tuned model's plus epsilon).
        halvings: how often the step may be halved.
        shrink: lambda of Algorithm 2, decoupled from t.
    """
    origin, snapshot = parameters.get(), parameters.snapshot()
    accepted, loss = False, float("inf")
    try:
        for tried in range(halvings + 1):
            factor = 0.5**tried
            parameters.set(origin * (1 - shrink) + step * factor)
            loss = loss_or_infinity(retain_check)
            if loss <= limit:
                accepted = True
                return Backtrack(True, factor, tried, loss)
        return Backtrack(False, 0.0, halvings, loss)
    finally:
        if not accepted:
            parameters.restore(snapshot)


def loss_or_infinity(objective: Objective) -> float:
    """The loss of a trial point; infinity where the step was so long that it is not finite."""
    try:
        return objective.loss()
    except NonFiniteError:
        return float("inf")
