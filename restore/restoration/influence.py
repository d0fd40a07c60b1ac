"""The influence update and the line search that keeps the retain loss within bounds (equations 2, 4 and 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..curvature.base import Curvature
from ..losses.objective import NonFiniteError, Objective
from ..models.parameters import FlatParameters
from ..models.vectors import dot

__all__ = ["Backtrack", "InfluenceStep", "backtrack", "influence_step", "loss_or_infinity"]


@dataclass(frozen=True)
class InfluenceStep:
    """An update of the parameters."""

    step: Tensor
    """The update, [n]."""
    gain: float
    """d'Delta, positive: d = -gradient, and Delta = H^-1 d."""
    direction_norm: float
    """|Delta|, before scaling."""
    norm: float
    """|step|."""
    slope: float
    """-gradient'step: what the loss that is descended falls by, to first order, in nats per token."""
    bend: float
    """step'C step, C the curvature without damping: twice what the fall loses to second order."""

    def predicted_fall(self, factor: float) -> float:
        """What the quadratic model of the loss falls by along `factor` of the step."""
        return factor * self.slope - factor**2 * self.bend / 2


def influence_step(
    curvature: Curvature,
    gradient: Tensor,
    config: RestoreConfig,
    groups: Sequence[tuple[int, int]] = (),
    origin: Tensor | None = None,
) -> InfluenceStep:
    """Delta = -H^-1 gradient, scaled.

    With the loss -L_forget it is equation 5, the ascent of the forget loss in the metric of the curvature.
    (Algorithm 2 writes Delta = -H^-1 g, which would lower the loss on harmful answers; equations 2, 4 and 5 ascend.)

    Args:
        curvature: gives the product with H^-1.
        gradient: of the loss that is descended, [n].
        config: `scale` "newton" leaves Delta as it is; "trust" makes it trust_radius * Delta / sqrt(d'Delta), the
            solution of equation 4; "euclid" makes it max_update * Delta / |Delta|, as Algorithm 2 does. Then
            `max_update` and `layer_radius` limit it.
        groups: slices of the vector that `layer_radius` limits one by one.
        origin: theta, [n], which `layer_radius` is relative to.

    Raises:
        InputError: H is not positive definite along the update, or the gradient vanishes.
    """
    wanted = -gradient
    delta = curvature.inverse_product(wanted)
    gain, length = dot(wanted, delta), dot(delta, delta) ** 0.5
    if not gain > 0 or not length > 0:
        raise InputError(
            f"The loss does not fall along the influence update (first-order gain {gain:g}, gradient norm "
            f"{dot(gradient, gradient) ** 0.5:g}). Give forget rows that the model complies with."
        )
    longest = float("inf") if config.max_update is None else config.max_update
    wished = {"newton": 1.0, "trust": config.trust_radius / gain**0.5, "euclid": longest / length}[config.scale]
    scale = min(wished, longest / length)
    step = delta * scale
    if config.layer_radius is not None and origin is not None:
        for begin, end in groups:
            part, size = step[begin:end], float(origin[begin:end].norm())
            part.mul_(min(1.0, config.layer_radius * size / max(float(part.norm()), 1e-30)))
    return InfluenceStep(step, gain, length, dot(step, step) ** 0.5, -dot(gradient, step), curvature.bend(step))


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
