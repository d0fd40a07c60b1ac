"""Curvature pairs from probe steps (Algorithm 1 of the paper)."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count

from torch import Tensor

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..losses.objective import Objective
from ..models.parameters import FlatParameters
from .lbfgs import CurvatureHistory, dot

__all__ = ["ProbeRecord", "Source", "build_history"]

POOR, GOOD = 0.25, 0.75
"""Reduction ratios below which a probe is rejected and above which the radius grows (Algorithm 1, lines 11-16)."""


@dataclass(frozen=True)
class Source:
    """A data set to probe: the forget set or one of the retain sets."""

    name: str
    batches: Sequence[Objective]
    retain: bool = True
    noise: float = 0.0
    """Relative rounding error of its gradients: the machine epsilon of the forward pass."""
    weight: float = 1.0
    """Of its loss in the loss whose curvature is wanted."""


@dataclass(frozen=True)
class ProbeRecord:
    """One probe step and what became of it. Losses in nats per token, norms Euclidean."""

    attempt: int
    source: str
    learning_rate: float
    radius: float
    """The bound on the step, before it was adapted."""
    loss_before: float
    loss_after: float
    gradient_norm: float
    step_norm: float
    change_norm: float
    """|y|, the length of the change of the gradient."""
    curvature: float
    """<s,y>/<s,s>, before damping."""
    predicted: float
    """Reduction of the loss that the model of the loss predicts."""
    ratio: float
    """Actual reduction divided by the predicted one (rho)."""
    damped: bool
    accepted: bool
    reason: str
    """Why it was rejected: ratio, noise, degenerate or curvature."""


class _Prober:
    """Takes probe steps; holds the radius, which each step adapts."""

    def __init__(self, parameters: FlatParameters, history: CurvatureHistory, config: RestoreConfig) -> None:
        self.parameters, self.history, self.config = parameters, history, config
        self.radius = config.probe_radius
        self.full_length = False
        self.records: list[ProbeRecord] = []

    def probe(self, source: Source, batch: Objective, rate: float) -> ProbeRecord:
        """One attempt: two forward and backward passes on the same batch. Leaves the parameters at the step's end."""
        before, gradient = batch.loss_and_gradient()
        norm, radius = dot(gradient, gradient) ** 0.5, self.radius
        length = radius if self.full_length else min(rate * norm, radius)
        start = self.parameters.get()
        self.parameters.add(gradient, -length / norm if norm > 0 else 0.0)
        s = self.parameters.get() - start
        after, later = batch.loss_and_gradient()
        y = (later - gradient) * source.weight
        predicted = self._predicted(gradient * source.weight, s)
        ratio = source.weight * (before - after) / predicted if predicted > 0 else 0.0
        outcome = self._judge(source, s, y, ratio, norm)
        record = ProbeRecord(
            len(self.records), source.name, rate, radius, before, after, norm, dot(s, s) ** 0.5, dot(y, y) ** 0.5,
            dot(s, y) / dot(s, s) if s.any() else 0.0, predicted, ratio, *outcome,
        )  # fmt: skip
        self.records.append(record)
        return record

    def _predicted(self, gradient: Tensor, s: Tensor) -> float:
        """Reduction of the loss along s: -g's - s'Bs/2, to first order where B is not in units of the loss yet.

        That is so before the first pair and where pairs are normalised separately. Where B overrates the curvature
        so much that no reduction is left, the first order decides as well.
        """
        linear = -dot(gradient, s)
        if not len(self.history) or self.config.normalize == "separate":
            return linear
        quadratic = linear - dot(s, self.history.product(s)) / 2
        return quadratic if quadratic > 0 else linear

    def _judge(self, source: Source, s: Tensor, y: Tensor, ratio: float, norm: float) -> tuple[bool, bool, str]:
        """Adapts the radius and offers the pair to the history: (damped, accepted, why not)."""
        if not s.any():
            return False, False, "degenerate"
        if not ratio >= POOR:
            self.radius = max(self.radius / 2, self.config.probe_radius_min)
            return False, False, "ratio"
        if ratio > GOOD:
            self.radius = min(self.radius * 1.5, self.config.probe_radius_max)
        if dot(y, y) ** 0.5 <= source.noise * source.weight * norm and not self.full_length:
            self.full_length = True  # from here on steps are as long as the radius, so that y rises above rounding
            return False, False, "noise"
        outcome = self.history.add(s, y, source.retain)
        return outcome.damped, outcome.accepted, outcome.reason


def _schedule(sources: Sequence[Source], rates: Sequence[float]) -> Iterator[tuple[Source, Objective, float]]:
    """Round-robin over the sources until all are exhausted; the rate changes per round, not per source."""
    for turn in count():
        left = [source for source in sources if turn < len(source.batches)]
        if not left:
            return
        for source in left:
            yield source, source.batches[turn], rates[turn % len(rates)]


def _chosen(sources: Sequence[Source], config: RestoreConfig) -> list[Source]:
    wanted = [s for s in sources if config.sources == "mixed" or s.retain == (config.sources == "retain")]
    if not any(source.batches for source in wanted):
        raise InputError(
            f"No data to probe curvature with (sources={config.sources}). Give such a set or change sources."
        )
    return wanted


def build_history(
    parameters: FlatParameters,
    sources: Sequence[Source],
    config: RestoreConfig,
    on_attempt: Callable[[int, int], None] = lambda pairs, attempts: None,
) -> tuple[CurvatureHistory, list[ProbeRecord]]:
    """Collects curvature pairs by probe steps at the current parameters, which end up bit-identical.

    Each attempt takes a step down the gradient of one batch and evaluates the same batch again. Attempts end at
    `config.pairs` pairs, at `config.max_attempts`, or when every batch has been used.

    Args:
        parameters: theta, [n].
        sources: the data sets in the order in which they take turns (the paper: forget, retain 1, retain 2).
        config: radii, rates and filters.
        on_attempt: called after each attempt with (pairs so far, attempts so far).

    Raises:
        InputError: no pair was accepted, or a loss or gradient is not finite.
    """
    history = CurvatureHistory(
        config.pairs, parameters.size, parameters.device,
        normalize=config.normalize, curv_tol=config.curv_tol, curv_test=config.curv_test, powell=config.powell,
        gamma=config.gamma,
    )  # fmt: skip
    prober = _Prober(parameters, history, config)
    with parameters.preserved():
        for source, batch, rate in _schedule(_chosen(sources, config), config.probe_rates):
            start = parameters.snapshot()
            record = prober.probe(source, batch, rate)
            if not config.walk or record.reason == "ratio":  # Algorithm 1, line 13; it keeps steps that give no pair
                parameters.restore(start)
            on_attempt(len(history), len(prober.records))
            if len(history) == config.pairs or len(prober.records) == config.max_attempts:
                break
    _check_enough(history, prober.records, config)
    return history, prober.records


def _check_enough(history: CurvatureHistory, records: Sequence[ProbeRecord], config: RestoreConfig) -> None:
    if len(history) >= min(config.min_pairs, config.pairs):
        return
    rejected = Counter(record.reason for record in records if not record.accepted)
    reasons = ", ".join(f"{number} for {reason}" for reason, number in rejected.items()) or "none"
    message = (
        f"{len(history)} of {config.pairs} curvature pairs after {len(records)} probe steps (rejected: {reasons}). "
        "Give more rows, or change probe_rates or probe_radius."
    )
    if not len(history):
        raise InputError(f"There is no curvature to follow: {message}")
    warnings.warn(f"The curvature rests on few pairs: {message}", stacklevel=3)
