"""The restoration: influence updates inside the retain bound (Algorithms 1 and 2 and equation 2 of the paper)."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import RestoreConfig
from .curvature import ProbeRecord, Source, build_history
from .influence import backtrack, influence_step
from .lbfgs import CurvatureHistory, dot
from .objective import Objective
from .parameters import FlatParameters

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "Tick", "Trace", "restore_parameters"]

TRACE_FILE = "restoration_trace.json"
Tick = Callable[[str, int, int], None]
"""Progress: (what is being done, steps done, steps in all)."""


@dataclass
class Trace:
    """What happened in each iteration, and at each probe step."""

    config: Any
    """The settings, a dataclass."""
    retain_reference: float
    """Loss on the retain check set before the first update, in nats per token."""
    iterations: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)

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


def restore_parameters(
    parameters: FlatParameters,
    forget: Objective,
    curvature_sources: Callable[[int], Sequence[Source]],
    retain_check: Objective,
    config: RestoreConfig,
    on_step: Tick = lambda what, done, total: None,
) -> Trace:
    """Raises the forget loss, the retain loss staying within `config.epsilon` of its first value.

    Whatever interrupts it, the parameters are as after the last accepted update, never in between.

    The model is run for probe steps (two gradients of a batch each), one forget gradient per iteration, the retain
    loss before the first update and at each trial of a line search, and, at the end, the forget loss of the result.

    Args:
        parameters: theta, [n] fp32; moved in place.
        forget: the loss that is raised.
        curvature_sources: iteration -> data sets to probe (drawn anew each time).
        retain_check: loss on held-out retain rows, which every update must respect.
        config: all settings.
        on_step: progress.

    Raises:
        InputError: no curvature pair, a vanished forget gradient, or a loss that is not finite.
    """
    reference = retain_check.loss()
    trace = Trace(config, reference)
    per_iteration, retain_loss = config.pairs + 2, reference
    total = config.iterations * per_iteration
    for iteration in range(config.iterations):
        begin, started = iteration * per_iteration, time.perf_counter()

        def on_attempt(pairs: int, attempts: int, begin: int = begin) -> None:
            on_step("restoring", begin + pairs, total)

        history, probes = build_history(parameters, curvature_sources(iteration), config, on_attempt)
        trace.probes += [{"iteration": iteration, **asdict(probe)} for probe in probes]
        row = _update(parameters, forget, retain_check, history, reference, iteration, config)
        if trace.iterations:  # its model is where this iteration's forget gradient was taken
            trace.iterations[-1]["forget_loss"] = row["forget_loss_before"]
        row = {"iteration": iteration, "retain_loss_before": retain_loss, **row, **_pairs(history, probes)}
        if not row["accepted"]:
            row["retain_loss"] = retain_loss
        retain_loss = row["retain_loss"]
        trace.iterations.append({**row, "seconds": time.perf_counter() - started})
        del history  # or there would be two while the next one is collected
        on_step("restoring", begin + per_iteration, total)
    if trace.iterations[-1]["accepted"]:
        trace.iterations[-1]["forget_loss"] = forget.loss()
    return trace


def _update(
    parameters: FlatParameters,
    forget: Objective,
    retain_check: Objective,
    history: CurvatureHistory,
    reference: float,
    iteration: int,
    config: RestoreConfig,
) -> dict[str, Any]:
    """One influence update and its line search; the row of the trace that tells of it, but for the loss it ends at."""
    shrink = config.shrink * config.shrink_anneal**iteration
    before, gradient = forget.loss_and_gradient()
    update = influence_step(history, gradient, config.trust_radius, config.scale, config.max_update)
    origin = parameters.get()
    found = backtrack(parameters, update.step, retain_check, reference + config.epsilon, config.halvings, shrink)
    moved = parameters.get() - origin
    return {
        "accepted": found.accepted,
        "forget_loss_before": before,
        "forget_loss": before,
        "retain_loss": found.retain_loss,
        "retain_limit": reference + config.epsilon,
        "step_factor": found.factor,
        "halvings": found.halvings,
        "step_norm": update.norm,
        "moved_norm": dot(moved, moved) ** 0.5,
        "parameter_norm": dot(origin, origin) ** 0.5,
        "gradient_norm": dot(gradient, gradient) ** 0.5,
        "direction_norm": update.direction_norm,
        "gain": update.gain,
        "predicted_rise": update.predicted * found.factor,
        "shrink": shrink,
    }


def _pairs(history: CurvatureHistory, probes: Sequence[ProbeRecord]) -> dict[str, Any]:
    return {
        "pairs": len(history),
        "pairs_rejected": sum(not probe.accepted for probe in probes),
        "pairs_damped": history.damped,
        "gamma": history.gamma,
    }
