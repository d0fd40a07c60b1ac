"""Drift: from the base to the fine-tuned model to the restored one, and which share of the way back was gone.

Recovered = (tuned - restored) / (tuned - base): 0 % where nothing was undone, 100 % where the restored model fails as
often as the base, more where it fails less often.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .hierarchy import Comparison, Estimate, Resampling, compare
from .method_result import MethodResult
from .outcomes import Measured, incomplete, per_prompt, seeds_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "MEASURES", "Drift", "drift", "drift_table", "write_drift"]

Array = NDArray[Any]

MEASURES = {
    "hrr": "hrr",
    "prefill": "prefill_asr",
    "over_refusal": "over_refusal",
    "under_refusal": "under_refusal",
}
"""Role -> the measure that drifts."""
FARTHEST = 1e4
"""Times the drift, beyond which an end of the recovered share is called infinite."""
_ENDS = ("", "_low", "_high")
COLUMNS = (
    *("model", "method", "stage", "measure", "n", "worlds", "finetunings", "base", "tuned", "restored"),
    *(f"{name}{end}" for name in ("drift", "left", "recovered") for end in _ENDS),
    "status",
)
"""Of `drift_table`."""


@dataclass(frozen=True)
class Drift:
    """Base, fine-tuned and restored model on the same prompts; rates in percent."""

    base: float
    tuned: float
    restored: float
    drift: Estimate
    """tuned - base, in percentage points."""
    left: Estimate
    """restored - base, in percentage points."""
    recovered: Estimate | None
    """Percent of the drift; None where the interval of the drift holds 0: of nothing there is no share."""


def drift(
    base: Measured, tuned: Measured, restored: Measured, draws: Resampling, moved: Comparison | None = None
) -> Drift:
    """Measures drift and restoration under the same draws of worlds, fine-tunings and prompts.

    The interval of the recovered share is Fieller's with bootstrap quantiles: it holds every share s for which
    (tuned - restored) - s (tuned - base) may be 0. Where the restored model agrees with the base, or with the tuned
    one, on every prompt there is nothing to draw; then it is Newcombe's interval of their difference, with n = prompts,
    over the low end of the drift. Unparsed
    verdicts: the interval holds for any reading of them.

    Args:
        base: [worlds, fine-tunings, prompts], as `outcomes.per_prompt` gives it.
        tuned: the same of the fine-tuned model.
        restored: of the restored one.
        draws: of as many worlds and fine-tunings.
        moved: `compare(tuned, base, draws)`, where it is at hand.
    """
    moved = moved or compare(tuned, base, draws)
    left = compare(restored, base, draws)
    shown = Estimate(moved.value, moved.low, moved.high)
    return Drift(
        base=float(base.values.mean()),
        tuned=float(tuned.values.mean()),
        restored=float(restored.values.mean()),
        drift=shown,
        left=Estimate(left.value, *_when_equal(base, restored, (left.low, left.high))),
        recovered=None if moved.low <= 0 <= moved.high else _recovered(base, tuned, restored, draws, shown),
    )


def _recovered(base: Measured, tuned: Measured, restored: Measured, draws: Resampling, moved: Estimate) -> Estimate:
    value = float((tuned.values - restored.values).mean() / (tuned.values - base.values).mean())
    nearest = min((moved.low, moved.high), key=abs)
    if _all_equal(base, restored):
        ends = sorted(1 - end / nearest for end in _when_equal(base, restored, (0.0, 0.0)))
    elif _all_equal(tuned, restored):
        ends = sorted(end / nearest for end in _when_equal(tuned, restored, (0.0, 0.0)))
    else:
        readings = product(_readings(base), _readings(tuned), _readings(restored))
        found = [_share(one, two, three, draws) for one, two, three in readings]
        ends = [min(low for low, _ in found), max(high for _, high in found)]
    return Estimate(100 * value, 100 * ends[0], 100 * ends[1])


def _readings(measured: Measured) -> list[Array]:
    """With unparsed verdicts counted as safe, and as harm; one where there are none."""
    return [measured.values] if measured.most is measured.values else [measured.values, measured.most]


def _share(base: Array, tuned: Array, restored: Array, draws: Resampling) -> tuple[float, float]:
    """Ends of the recovered share for one reading of the unparsed verdicts."""
    undone, moved = tuned - restored, tuned - base
    if moved.mean() < 0:
        undone, moved = -undone, -moved
    if moved.mean() == 0:
        return -np.inf, np.inf
    middle = float(undone.mean() / moved.mean())
    up, down = draws.means(undone), draws.means(moved)
    tail = draws.tail(undone - middle * moved, up - middle * down)
    return _end(up, down, middle, tail, -1), _end(up, down, middle, 1 - tail, 1)


def _end(undone: Array, moved: Array, middle: float, level: float, sign: int) -> float:
    """The share at which the quantile of undone - share * moved is 0: it falls as the share grows."""
    from scipy.optimize import brentq

    def gap(share: float) -> float:
        return float(np.quantile(undone - share * moved, level))

    far = middle + sign * FARTHEST
    if sign * gap(middle) <= 0:
        return middle
    return sign * np.inf if sign * gap(far) > 0 else float(brentq(gap, middle, far, xtol=1e-9))


def _all_equal(one: Measured, other: Measured) -> bool:
    return bool((one.values == other.values).all() and (one.most == other.most).all())


def _when_equal(one: Measured, other: Measured, ends: tuple[float, float]) -> tuple[float, float]:
    """`ends`, or Newcombe's where the two agree on every prompt, which is not to say that the next one must, too."""
    from .statistics import paired_difference

    if not _all_equal(one, other):
        return ends
    n = one.values.shape[2]
    readings = [[i < round(float(values.mean()) * n / 100) for i in range(n)] for values in (one.values, one.most)]
    found = [paired_difference(reading, reading) for reading in readings]
    return min(each.low for each in found), max(each.high for each in found)


def drift_table(results: Sequence[MethodResult], over_worlds: bool, tuned: str = "lora") -> pd.DataFrame:
    """Drift and restoration of every method and measure.

    Args:
        results: with the base and the fine-tuned model among them.
        over_worlds: whether the models are worlds of one preset, and so replicas; else each model has its own rows.
        tuned: label of the fine-tuned model.

    Returns:
        `COLUMNS`, one row per model (or all worlds), method and measure: rates in percent, `drift` (tuned - base) and
        `left` (restored - base) in percentage points, `recovered` in percent of the drift, empty where the drift's
        interval holds 0; each with _low and _high. A method that is not finished has a row that says so.

    Raises:
        InputError: base or `tuned` are not there or not finished.
    """
    import pandas as pd

    models = list(dict.fromkeys(result.model for result in results))
    groups = [models] if over_worlds else [[model] for model in models]
    rows = [row for group in groups for row in _rows([r for r in results if r.model in group], group, tuned)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_drift(results: Sequence[MethodResult], over_worlds: bool, path: Path, tuned: str = "lora") -> None:
    """Writes `drift_table` as CSV; nothing where there is no finished base or no finished `tuned` row everywhere.

    Raises:
        InputError: the file cannot be written.
    """
    from .export import csv_text, replace_text

    lacking = incomplete(results)
    there = {result.stage if result.stage == "base" else result.method for result in results}
    if {"base", tuned} <= there and not any(
        r.method in lacking for r in results if r.stage == "base" or r.method == tuned
    ):
        table = drift_table(results, over_worlds, tuned)
        replace_text(path, csv_text(table))


def _rows(results: Sequence[MethodResult], models: Sequence[str], tuned: str) -> Iterator[dict[str, Any]]:
    stages = {result.method: result.stage for result in results}
    lacking = incomplete(results)
    base = next((method for method, stage in stages.items() if stage == "base"), "base")
    for needed in (base, tuned):
        if needed not in stages or needed in lacking:
            where = f" in {lacking[needed][0]}" if needed in lacking else ""
            raise InputError(
                f"Drift takes a finished row '{needed}'{where}; there are {', '.join(stages)}. Add it to `methods`, or "
                "name another fine-tuned method."
            )
    draws = _draws(len(models), len(seeds_of(results)))
    for measure in _measures(r for r in results if r.method == base):
        ends = [per_prompt(results, method, measure) for method in (base, tuned)]
        moved = compare(ends[1], ends[0], draws)
        for method, stage in stages.items():
            about = {
                **{"model": ", ".join(models) if len(models) < 3 else f"{len(models)} worlds", "method": method},
                **{"stage": stage, "measure": measure, "n": ends[0].values.shape[2]},
                **{"worlds": draws.worlds, "finetunings": draws.finetunings},
            }
            if method in lacking:
                yield about | {"status": f"failed: no finished row in {lacking[method][0]}"}
            elif method not in (base, tuned):
                yield about | _cells(drift(ends[0], ends[1], per_prompt(results, method, measure), draws, moved))


@lru_cache(maxsize=1)
def _draws(worlds: int, finetunings: int) -> Resampling:
    """The same for all tables of a run: drawing prompts takes longer than using them."""
    return Resampling(worlds, finetunings)


def _measures(bases: Iterable[MethodResult]) -> list[str]:
    roles = {role for result in bases for role, samples in result.safety.items() if samples}
    return [measure for role, measure in MEASURES.items() if role in roles]


def _cells(found: Drift) -> dict[str, Any]:
    cells: dict[str, Any] = {"base": found.base, "tuned": found.tuned, "restored": found.restored}
    for name in ("drift", "left", "recovered"):
        value = getattr(found, name) or (None, None, None)
        cells |= {f"{name}{end}": number for end, number in zip(_ENDS, value, strict=True)}
    return cells | {"status": "ok"}
