"""The restoration: influence updates inside the retain bound (Algorithms 1 and 2 and equation 2 of the paper)."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .config import RestoreConfig
from .curvature import ProbeRecord
from .estimators import Curvature
from .influence import backtrack, influence_step
from .objective import Objective
from .parameters import FlatParameters
from .terms import Term, descent
from .vectors import dot

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "Aim", "Tick", "Trace", "restore_parameters"]

TRACE_FILE = "restoration_trace.json"
Tick = Callable[[str, int, int], None]
"""Progress: (what is being done, steps done, steps in all)."""
Probes = Sequence[ProbeRecord]


@dataclass
class Trace:
    """What happened in each iteration, and at each probe step."""

    config: Any
    """The settings, a dataclass."""
    retain_reference: float
    """Loss on the retain check set before the first update, in nats per token."""
    iterations: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    stopped: str = ""
    """Why it ended before all iterations were done."""

    def frame(self) -> "pd.DataFrame":
        """One row per iteration."""
        import pandas as pd

        return pd.DataFrame(self.iterations)

    def probe_frame(self) -> "pd.DataFrame":
        """One row per probe step."""
        import pandas as pd

        return pd.DataFrame(self.probes)

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self), indent=2)

    def save(self, folder: str | Path) -> None:
        """Writes it to `restoration_trace.json` in an adapter's folder."""
        (Path(folder) / TRACE_FILE).write_text(self.to_json() + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Aim:
    """What a restoration descends, what it knows of curvature, and when it is done."""

    terms: Callable[[int], Sequence[Term]]
    """Iteration -> the loss that its update descends."""
    estimate: Callable[[int, Sequence[Term], Tensor, Callable[[int], None]], tuple[Curvature, Probes]]
    """(iteration, terms, their gradient, progress in steps) -> the curvature at the parameters as they stand."""
    effort: int
    """Steps of progress that an estimate takes, about."""
    fixed: Sequence[Term] = ()
    """Terms that are the same in every iteration; the trace tells their values before and after each update."""
    enough: Callable[[], str] = lambda: ""
    """Why the model is restored as it stands; empty where it is not. Asked after each accepted update."""
    adjust: Callable[[int, Tensor], Tensor] = lambda iteration, gradient: gradient
    """(iteration, gradient of the terms) -> the gradient that the update follows."""


def restore_parameters(
    parameters: FlatParameters,
    aim: Aim,
    retain_check: Objective,
    config: RestoreConfig,
    on_step: Tick = lambda what, done, total: None,
) -> Trace:
    """Descends the aim's loss, the retain loss staying within `config.epsilon` of its first value.

    Whatever interrupts it, the parameters are as after the last accepted update, never in between.

    The model is run for one gradient of each term and one estimate of the curvature per iteration, for the retain
    loss before the first update and at each trial of a line search, for `aim.enough`, and, if the last update was
    accepted, for the fixed terms at the result.

    Args:
        parameters: theta, [n] fp32; moved in place.
        aim: the loss that is descended, and its curvature.
        retain_check: loss on held-out retain rows, which every update must respect.
        config: all settings.
        on_step: progress.

    Returns:
        The trace, with a row for each iteration.

    Raises:
        InputError: no curvature, a vanished gradient, or a loss that is not finite.
    """
    reference = retain_check.loss()
    trace, retain_loss = Trace(config, reference), reference
    per_iteration = aim.effort + 2
    total = config.iterations * per_iteration
    estimate: tuple[Curvature, Probes] | None = None
    for iteration in range(config.iterations):
        begin, started = iteration * per_iteration, time.perf_counter()
        terms = aim.terms(iteration)
        values, gradient = descent(terms)
        _note_values(trace, values, aim.fixed)
        gradient = aim.adjust(iteration, gradient)
        on_step("restoring", begin, total)
        if estimate is None:

            def on_part(done: int, begin: int = begin) -> None:
                on_step("restoring", begin + min(done, aim.effort), total)

            estimate = aim.estimate(iteration, terms, gradient, on_part)
            trace.probes += [{"iteration": iteration, **asdict(probe)} for probe in estimate[1]]
        row = {"iteration": iteration, "retain_loss_before": retain_loss}
        row |= {f"{name}_before": value for name, value in values.items()}
        row |= _update(parameters, gradient, estimate[0], retain_check, reference, iteration, config)
        row |= estimate[0].report()
        retain_loss = row["retain_loss"] = row["retain_loss"] if row["accepted"] else retain_loss
        trace.iterations.append({**row, "seconds": time.perf_counter() - started})
        if config.fresh_curvature:
            estimate = None  # freed here, or there would be two while the next one is made
        on_step("restoring", begin + per_iteration, total)
        trace.stopped = aim.enough() if row["accepted"] else ""
        if trace.stopped:
            break
    moved = trace.iterations[-1]["accepted"]
    _note_values(trace, {t.name: t.objective.loss() if moved else values[t.name] for t in aim.fixed}, aim.fixed)
    on_step("restoring", total, total)
    return trace


def _note_values(trace: Trace, values: dict[str, float], fixed: Sequence[Term]) -> None:
    """Fills in where the last update led: what the next gradient, or the end, tells of it."""
    if trace.iterations:
        trace.iterations[-1] |= {term.name: values[term.name] for term in fixed}


def _update(
    parameters: FlatParameters,
    gradient: Tensor,
    curvature: Curvature,
    retain_check: Objective,
    reference: float,
    iteration: int,
    config: RestoreConfig,
) -> dict[str, Any]:
    """One influence update and its line search; the row of the trace that tells of it."""
    origin = parameters.get()
    shrink = config.shrink * config.shrink_anneal**iteration
    filtered = config.shrink_in == "curvature"
    pull = origin * shrink if filtered and shrink else None
    update = influence_step(curvature, gradient, config, pull, parameters.modules, origin)
    limit = float("inf") if config.epsilon is None else reference + config.epsilon
    shrunk = 0.0 if filtered else shrink
    found = backtrack(parameters, update.step, retain_check, limit, config.halvings, shrunk)
    moved = parameters.get() - origin
    return {
        "accepted": found.accepted,
        "retain_loss": found.retain_loss,
        "retain_limit": None if config.epsilon is None else limit,
        "step_factor": found.factor,
        "halvings": found.halvings,
        "step_norm": update.norm,
        "moved_norm": dot(moved, moved) ** 0.5,
        "parameter_norm": dot(origin, origin) ** 0.5,
        "gradient_norm": dot(gradient, gradient) ** 0.5,
        "direction_norm": update.direction_norm,
        "gain": update.gain,
        "predicted_fall": update.predicted * found.factor,
        "shrink": shrink,
    }
