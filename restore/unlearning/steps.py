"""Unlearning by gradient steps, inside the bound and the budget of the restoration."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ...errors import InputError
from ..losses.objective import Objective
from ..losses.of_model import Losses
from ..losses.terms import Term, descent
from ..models.parameters import FlatParameters
from ..models.vectors import dot
from ..restoration.influence import backtrack
from ..restoration.loop import Tick, Trace
from .config import RetainedUnlearnConfig, UnlearnConfig

__all__ = ["Terms", "retain_terms", "unlearn_parameters"]


Terms = Callable[[int, int], Sequence[Term]]
"""(iteration, step) -> the parts of the loss that this step descends."""


def retain_terms(losses: Losses, config: RetainedUnlearnConfig) -> Terms:
    """The retain term of each step: a batch of its own, drawn anew in each iteration; nothing at weight 0."""
    if not config.retain_weight:
        return lambda iteration, step: ()
    drawn = [losses.batches("retain", i, config.batch_size, config.steps) for i in range(config.iterations)]

    def terms(iteration: int, step: int) -> Sequence[Term]:
        batches = drawn[iteration]
        return (Term("retain_batch_loss", config.retain_weight, batches[step % len(batches)]),)

    return terms


def unlearn_parameters(
    parameters: FlatParameters,
    terms: Terms,
    retain_check: Objective,
    config: UnlearnConfig,
    on_step: Tick = lambda what, done, total: None,
) -> Trace:
    """Descends the terms; every step is halved until the retain loss is within `config.epsilon` of its first value.

    A step that no halving helps is not taken and ends its iteration. Whatever interrupts it, the parameters are as
    after the last accepted step.

    Args:
        parameters: theta, [n] fp32; moved in place.
        terms: the loss of each step.
        retain_check: loss on held-out retain rows, which every step must respect.
        config: all settings.
        on_step: progress.

    Returns:
        The trace, with a row for each step.

    Raises:
        InputError: the gradient vanishes, or a loss is not finite.
    """
    start, trace = parameters.get(), Trace(config, retain_check.loss())
    retain_loss, first = trace.retain_reference, 0.0
    for iteration in range(config.iterations):
        for step in range(config.steps):
            began = time.perf_counter()
            values, gradient = descent(terms(iteration, step))
            norm = _norm(gradient)
            first = first or norm
            row = {"iteration": iteration, "step": step, "retain_loss_before": retain_loss}
            row |= {f"{name}_before": value for name, value in values.items()}
            row |= _move(parameters, gradient, _length(norm, first, config), retain_check, trace)
            row["retain_loss"] = retain_loss = row["retain_loss"] if row["accepted"] else retain_loss
            row |= {"distance": _norm(parameters.get() - start), "gradient_evaluations": len(values)}
            trace.iterations.append({**row, "seconds": time.perf_counter() - began})
            on_step("unlearning", iteration * config.steps + step + 1, config.iterations * config.steps)
            if not row["accepted"]:
                break
    on_step("unlearning", config.iterations * config.steps, config.iterations * config.steps)
    return trace


def _norm(vector: Tensor) -> float:
    return math.sqrt(dot(vector, vector))


def _length(norm: float, first: float, config: UnlearnConfig) -> float:
    """Euclidean length of a step, given the gradient's norm now and at the first step."""
    if not norm > 0:
        raise InputError(
            "The gradient of the unlearning loss vanished, so there is no direction to go. Give forget rows that the "
            "model complies with, or fewer steps."
        )
    return config.step_length if config.constant_length else config.step_length * min(1.0, norm / first)


def _move(
    parameters: FlatParameters, gradient: Tensor, length: float, retain_check: Objective, trace: Trace
) -> dict[str, Any]:
    """One step down the gradient, inside the bound; what the trace tells of it."""
    origin, norm, limit = parameters.get(), _norm(gradient), trace.retain_reference + trace.config.epsilon
    found = backtrack(parameters, gradient * (-length / norm), retain_check, limit, trace.config.halvings)
    return {
        "accepted": found.accepted,
        "retain_loss": found.retain_loss,
        "retain_limit": limit,
        "step_factor": found.factor,
        "halvings": found.halvings,
        "step_norm": length,
        "moved_norm": _norm(parameters.get() - origin),
        "parameter_norm": _norm(origin),
        "gradient_norm": norm,
    }
