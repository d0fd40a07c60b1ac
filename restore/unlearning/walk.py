"""A control's path away from the tuned model, followed as far as the bound on the retain loss allows."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from ...errors import InputError
from ..curvature.lbfgs import dot
from ..losses.objective import Objective
from ..models.parameters import FlatParameters
from ..restoration.influence import loss_or_infinity
from ..restoration.loop import Tick, Trace
from .config import ControlConfig

__all__ = ["Path", "check_linear", "follow"]


@dataclass(frozen=True)
class Path:
    """A curve through parameter space that begins at the tuned model."""

    at: Callable[[float], Tensor]
    """Multiple -> theta, [n] fp32; the tuned model's at 0."""
    first: float
    """The multiple tried first; doubled while the bound holds."""
    last: float
    """The end of the path."""


def check_linear(names: Iterable[str]) -> None:
    """Refuses DoRA, by the names of its parameters.

    Raises:
        InputError: the weights are not linear in B, nor is 0 the base.
    """
    if any("lora_magnitude" in name for name in names):
        raise InputError("The adapter is DoRA, whose weights are not linear in B. Use plain LoRA.")


def follow(
    parameters: FlatParameters,
    path: Path,
    retain_check: Objective,
    config: ControlConfig,
    on_step: Tick = lambda what, done, total: None,
) -> Trace:
    """Doubles the multiple until the bound is broken or the path ends, then bisects.

    It ends at a point within the bound that has one outside just beyond it. Where the loss rises all along the path
    that is the largest change allowed; where it does not, a larger one may be allowed too. Whatever interrupts it, the
    parameters are at the last accepted trial.

    Args:
        parameters: theta, [n] fp32; moved in place.
        path: where to go.
        retain_check: loss on held-out retain rows; it may rise by `config.epsilon`.
        config: all settings.
        on_step: progress.

    Returns:
        The trace, with a row for each trial.
    """
    start, snapshot, trace = parameters.get(), parameters.snapshot(), Trace(config, retain_check.loss())
    limit, left = trace.retain_reference + config.epsilon, config.epsilon
    low, high, multiple = 0.0, float("inf"), path.first
    try:
        for trial in range(config.max_trials):
            began = time.perf_counter()
            parameters.set(path.at(multiple))
            moved, loss = parameters.get() - start, loss_or_infinity(retain_check)
            trace.iterations.append(
                {
                    "iteration": trial,
                    "accepted": loss <= limit,
                    "multiple": multiple,
                    "retain_loss": loss if loss < float("inf") else None,
                    "retain_limit": limit,
                    "moved_norm": math.sqrt(dot(moved, moved)),
                    "seconds": time.perf_counter() - began,
                }
            )
            on_step("searching", trial + 1, config.max_trials)
            if loss <= limit:
                low, left = multiple, limit - loss
            else:
                high = multiple
            if low >= path.last or left <= config.tolerance * config.epsilon:
                break
            multiple = min(2 * low, path.last) if high == float("inf") else (low + high) / 2
    finally:
        parameters.restore(snapshot) if low == 0 else parameters.set(path.at(low))
    on_step("searching", config.max_trials, config.max_trials)
    return trace
