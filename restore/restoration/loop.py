"""The restoration: influence updates inside the retain bound (Algorithms 1 and 2 and equation 2 of the paper)."""

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from ..config.settings import RestoreConfig
from ..curvature.base import Curvature
from ..curvature.pairs import ProbeRecord
from ..losses.objective import Objective
from ..losses.passes import Passes
from ..losses.terms import Term, descent
from ..models.parameters import FlatParameters
from ..models.vectors import dot
from .gain_ratio import GainRatio
from .influence import Backtrack, InfluenceStep, backtrack, influence_step, loss_or_infinity
from .stopping import State

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACE_FILE", "Aim", "Tick", "Trace", "restore_parameters"]

TRACE_FILE = "restoration_trace.json"
TRIALS = 8
"""Times that an update without gain is tried again with a tighter curvature."""
STALLED = 0.01
"""An update that lowers the loss to restore by less than this share of it, and the retain loss by less than this share
of epsilon, is as good as none."""
Tick = Callable[[str, int, int], None]
"""Progress: (what is being done, steps done, steps in all)."""
Probes = Sequence[ProbeRecord]
Ending = Literal["restored", "bound", "no gain", "iterations"]


@dataclass
class Trace:
    """What happened in each iteration, and at each probe step."""

    config: Any
    """The settings, a dataclass."""
    retain_reference: float
    """Loss on the retain check set before the first update, in nats per token."""
    iterations: list[dict[str, Any]] = field(default_factory=list)
    probes: list[dict[str, Any]] = field(default_factory=list)
    epsilon: float | None = None
    """How much that loss might rise; None for any rise."""
    ended: Ending = "iterations"
    """By what it ended: restored, the bound on the retain loss, no update with gain, or the number of iterations."""
    state: str = ""
    """How far the model was restored at the end, where that was measured."""
    row_passes: float = 0.0
    """Rows that went through the model forward and backward; a row forward only counts 1/3."""

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

    terms: Callable[[int, Mapping[str, float], float], Sequence[Term]]
    """(iteration, values of the fixed terms, rise of the retain loss that is left) -> the loss its update descends."""
    estimate: Callable[[int, Sequence[Term], Tensor, Callable[[int], None]], tuple[Curvature, Probes]]
    """(iteration, terms, their gradient, progress in steps) -> the curvature at the parameters as they stand."""
    effort: int
    """Steps of progress that an estimate takes, about."""
    fixed: Sequence[Term] = ()
    """Terms that are the same in every iteration; the trace tells their values before and after each update."""
    enough: Callable[[], State | None] = lambda: None
    """How far the model as it stands is restored. Asked at the start and after each accepted update."""
    adjust: Callable[[int, Tensor], Tensor] = lambda iteration, gradient: gradient
    """(iteration, gradient of the terms) -> the gradient that the update follows."""
    epsilon: float | None = None
    """How much the retain loss may rise in all, in nats per token; None does not bound it."""
    passes: Passes = field(default_factory=Passes)
    """Counts what the losses run."""


def restore_parameters(
    parameters: FlatParameters,
    aim: Aim,
    retain_check: Objective,
    config: RestoreConfig,
    on_step: Tick = lambda what, done, total: None,
    on_update: Callable[[int], None] = lambda iteration: None,
) -> Trace:
    """Descends the aim's loss, the retain loss staying within `aim.epsilon` of its first value.

    It ends where the model is restored, where no update satisfies the bound, where none gains, or after
    `config.iterations`; it warns where it ended otherwise and harm is known to be left. Whatever interrupts it, the
    parameters are as after the last accepted update, never in between.

    Args:
        parameters: theta, [n] fp32; moved in place.
        aim: the loss that is descended, its curvature, and when it is done.
        retain_check: loss on held-out retain rows, which every update must respect.
        config: all settings.
        on_step: progress.
        on_update: called with the number of the iteration, from 1, after each accepted update; the parameters are those
            that it led to.

    Returns:
        The trace, with a row for each iteration.

    Raises:
        InputError: no curvature, a vanished gradient, or a loss that is not finite.
    """
    restoration = _Restoration(parameters, aim, retain_check, config, on_step, on_update)
    trace = restoration.run()
    if trace.ended != "restored" and trace.state:
        why = {
            "bound": f"the bound on the retain loss (epsilon {trace.epsilon or 0.0:g}) allows no further update",
            "no gain": "no further update gains",
            "iterations": f"all {config.iterations} iterations are done",
        }[trace.ended]
        warnings.warn(f"The model is not fully restored: {trace.state}, and {why}.", stacklevel=5)
    return trace


class _Restoration:
    """One run of `restore_parameters`; holds what one iteration hands to the next."""

    def __init__(
        self,
        parameters: FlatParameters,
        aim: Aim,
        retain_check: Objective,
        config: RestoreConfig,
        on_step: Tick,
        on_update: Callable[[int], None],
    ) -> None:
        self.parameters, self.aim, self.retain_check, self.config = parameters, aim, retain_check, config
        self.on_step, self.on_update = on_step, on_update
        self.retain_loss = retain_check.loss()
        self.trace = Trace(config, self.retain_loss, epsilon=aim.epsilon)
        self.limit = float("inf") if aim.epsilon is None else self.retain_loss + aim.epsilon
        self.trust = GainRatio()
        self.curvature: Curvature | None = None
        self.values: dict[str, float] = self._values(aim.fixed) if config.retain is None else {}
        """Of the fixed terms at the parameters as they stand; empty where nobody has asked yet."""
        self.per_iteration = aim.effort + 2
        self.total = config.iterations * self.per_iteration

    def run(self) -> Trace:
        """All iterations."""
        if not self._restored():
            for iteration in range(self.config.iterations):
                if self._iterate(iteration):
                    break
            self._note(self.values or self._values(self.aim.fixed))
        self.trace.row_passes = self.aim.passes.rows
        self.on_step("restoring", self.total, self.total)
        return self.trace

    @staticmethod
    def _values(terms: Sequence[Term]) -> dict[str, float]:
        """Of the terms at the parameters as they stand; infinity where an update led so far that one is not finite."""
        return {term.name: loss_or_infinity(term.objective) for term in terms}

    def _note(self, values: Mapping[str, float]) -> None:
        """Fills in where the last update led: what its own trial, the next gradient, or the end tells of it."""
        if self.trace.iterations:
            self.trace.iterations[-1] |= {term.name: values[term.name] for term in self.aim.fixed}

    def _restored(self) -> bool:
        state = self.aim.enough()
        self.trace.state = state.text if state else ""
        if state and state.enough:
            self.trace.ended = "restored"
        return bool(state and state.enough)

    def _iterate(self, iteration: int) -> bool:
        """One influence update; whether it was the last."""
        started, begin = time.perf_counter(), iteration * self.per_iteration
        self.on_step("restoring", begin, self.total)
        terms = self.aim.terms(iteration, self.values, self.limit - self.retain_loss)
        before, gradient = descent(terms)
        self._note(before)
        gradient = self.aim.adjust(iteration, gradient)
        known, estimating = self.aim.passes.rows, time.perf_counter()
        curvature = self._estimate(iteration, terms, gradient, begin)
        row: dict[str, Any] = {"iteration": iteration, "retain_loss_before": self.retain_loss}
        row |= {"curvature_row_passes": self.aim.passes.rows - known}
        row |= {"curvature_seconds": time.perf_counter() - estimating}
        row |= {f"{name}_before": value for name, value in before.items()}
        self.values = {term.name: before[term.name] for term in self.aim.fixed}
        ending, told = self._update(iteration, terms, before, gradient, curvature)
        row |= told | curvature.report()
        row |= {"retain_loss": self.retain_loss, "retain_limit": None if self.aim.epsilon is None else self.limit}
        row |= {"row_passes": self.aim.passes.rows, "seconds": time.perf_counter() - started}
        self.trace.iterations.append(row)
        self.on_step("restoring", begin + self.per_iteration, self.total)
        if told["accepted"]:
            self.on_update(iteration + 1)
        if told["accepted"] and self._restored():
            return True
        self.trace.ended = ending or "iterations"
        return bool(ending) and self.config.adaptive  # without a memory, other batches may find another update

    def _estimate(self, iteration: int, terms: Sequence[Term], gradient: Tensor, begin: int) -> Curvature:
        if self.curvature is None or self.config.fresh_curvature:
            self.curvature = None  # freed here, or there would be two while the next one is made

            def on_part(done: int) -> None:
                self.on_step("restoring", begin + min(done, self.aim.effort), self.total)

            self.curvature, probes = self.aim.estimate(iteration, terms, gradient, on_part)
            self.trace.probes += [{"iteration": iteration, **asdict(probe)} for probe in probes]
        return self.curvature

    def _update(
        self, iteration: int, terms: Sequence[Term], before: Mapping[str, float], gradient: Tensor, curvature: Curvature
    ) -> tuple[Ending | None, dict[str, Any]]:
        """Takes the longest update with gain within the bound: why there is none, and what the trace tells of it."""
        origin, snapshot = self.parameters.get(), self.parameters.snapshot()
        shrink = self.config.shrink * self.config.shrink_anneal**iteration
        told: dict[str, Any] = {"accepted": False}
        for trial in range(TRIALS):
            curvature.tightness = self.trust.tightness
            update = influence_step(curvature, gradient, self.config, self.parameters.modules, origin)
            try:
                found = backtrack(
                    self.parameters, update.step, self.retain_check, self.limit, self.config.halvings, shrink
                )
                told = self._told(update, found, origin, gradient) | {"shrink": shrink, "trials": trial + 1}
                if not found.accepted:
                    return "bound", told
                told["accepted"] = False
                ending = self._judge(terms, before, update, found, told)
            finally:
                if not told["accepted"]:
                    self.parameters.restore(snapshot)
            if told["accepted"]:
                self.retain_loss = found.retain_loss
                return ending, told
        return "no gain", told

    def _judge(
        self, terms: Sequence[Term], before: Mapping[str, float], update: InfluenceStep, found: Backtrack, told: Any
    ) -> Ending | None:
        """Whether the update taken is kept, as `told["accepted"]`; and why it is the last one worth taking."""
        if not self.config.adaptive:
            self.values = self._values(self.aim.fixed) if self.config.retain is None else {}
            told["accepted"] = True
            return None
        after = self._values(terms)
        fall = sum(term.weight * (before[term.name] - after[term.name]) for term in terms)
        predicted, finite = update.predicted_fall(found.factor), math.isfinite(fall)
        told |= {"fall": fall if finite else None, "gain_ratio": fall / predicted if finite and predicted > 0 else None}
        told["accepted"] = self.trust.gained(fall if finite else float("-inf"), predicted)
        if not told["accepted"]:
            return None
        self.values = {term.name: after[term.name] for term in self.aim.fixed}
        return "no gain" if self._stalled(before, after, found.retain_loss) else None

    def _stalled(self, before: Mapping[str, float], after: Mapping[str, float], retain_loss: float) -> bool:
        """Whether an update brought nothing to speak of: neither less of the fixed terms nor more room for others."""
        old, new = (sum(term.weight * values[term.name] for term in self.aim.fixed) for values in (before, after))
        room = (self.retain_loss - retain_loss) / self.aim.epsilon if self.aim.epsilon else 0.0
        return bool(self.aim.fixed) and old - new < STALLED * abs(old) and room < STALLED

    def _told(self, update: InfluenceStep, found: Backtrack, origin: Tensor, gradient: Tensor) -> dict[str, Any]:
        moved = self.parameters.get() - origin
        return {
            "accepted": found.accepted,
            "step_factor": found.factor,
            "halvings": found.halvings,
            "step_norm": update.norm,
            "moved_norm": dot(moved, moved) ** 0.5,
            "parameter_norm": dot(origin, origin) ** 0.5,
            "gradient_norm": dot(gradient, gradient) ** 0.5,
            "direction_norm": update.direction_norm,
            "gain": update.gain,
            "predicted_fall": update.predicted_fall(found.factor),
            "tightness": self.trust.tightness,
        }
