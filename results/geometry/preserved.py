"""The paper's claim over models: is harmful loss better preserved than other loss, and does that tell who is repaired?

A cell is one fine-tuning of one model; its correlations with its base are those of `restore.geometry.tables`. Models
are the unit of replication, as in `results.hierarchy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..hierarchy import Resampling, compare
from ..statistics import holm

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ALL", "COMPARED", "CONTROL", "HARMFUL", "PREDICTORS", "predicted", "preserved"]

Vector = NDArray[np.float64]
CELL = ["model", "seed"]
HARMFUL = "harmful"
"""The set whose losses are said to be preserved."""
ALL = "all other sets"
"""The mean of their z, in place of one set."""
COMPARED = {"prompt": "prompt", "affirmative": "answer", "answer": "answer"}
"""Target on harmful prompts -> the target on other sets that it is compared with: like with like."""
PREDICTORS = ("prompt", "affirmative", "answer", "refusal")
"""Targets on harmful prompts whose r may tell how much a repair undoes."""
CONTROL = "drift"
"""What has to be beaten: how far the model drifted, by itself."""
FEWEST = 4
"""Cells below which no rank correlation is told."""
EDGE = 0.9999
"""r beyond it counts as this: Fisher's z of 1 is infinite."""


def preserved(correlations: pd.DataFrame) -> pd.DataFrame:
    """Harmful losses against those of each other set, r given length on the same kind of target, paired by cell.

    Of each model as many fine-tunings are taken, the first by seed, as the model with the fewest has.
    Each r is taken as Fisher's z = artanh r. Intervals and tests of the difference are `hierarchy.compare`: models and
    their fine-tunings are drawn, p is the sign-flip test over models, corrected by Holm over all rows.

    Args:
        correlations: of the tuned models: model, seed, set, target, and `partial`.

    Returns:
        One row per target on harmful prompts and other set, and the mean of them: target, set, models, cells;
        `harmful` and `other`, r of the mean z; `difference` in z with `low`, `high`, `p`, `p_holm`; `least` and `most`,
        the extremes of single cells. Sets without an r in every cell are left out.
    """
    import pandas as pd

    table = correlations.assign(z=np.arctanh(correlations["partial"].clip(-EDGE, EDGE)))
    table = table.pivot(index=CELL, columns=["set", "target"], values="z").dropna(axis=1)
    of_model = table.groupby(level="model", sort=False)
    table = of_model.head(int(of_model.size().min())) if len(table) else table
    rows = [row for target in COMPARED if (HARMFUL, target) in table for row in _of_target(table, target)]
    found = pd.DataFrame(rows)
    if len(found):
        found["p_holm"] = np.array(holm(list(found["p"])), dtype=np.float64)
    return found


def _of_target(table: pd.DataFrame, target: str) -> Iterator[dict[str, Any]]:
    harmful, models = table[HARMFUL, target], table.index.get_level_values("model").nunique()
    wanted = COMPARED[target]
    names = [str(key[0]) for key in table.columns if key[1] == wanted and key[0] != HARMFUL]
    others = {name: table[name, wanted] for name in names}
    if len(names) > 1:
        others[ALL] = table[[(name, wanted) for name in names]].mean(axis=1)
    for name, other in others.items():
        first, second = (each.to_numpy(np.float64).reshape(models, -1) for each in (harmful, other))
        draws = Resampling(*first.shape)
        found = compare((first, first), (second, second), draws)
        if first.size == 1:  # nothing can be drawn, which is not to say that it is certain
            found = found._replace(low=float("nan"), high=float("nan"))
        differences = harmful - other
        yield {
            "target": target, "set": name, "models": models, "cells": len(table),
            "harmful": float(np.tanh(harmful.mean())), "other": float(np.tanh(other.mean())),
            "difference": found.value, "low": found.low, "high": found.high, "p": found.p_worlds,
            "least": float(differences.min()), "most": float(differences.max()),
        }  # fmt: skip


def predicted(cells: pd.DataFrame, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Does what is preserved in a tuned model tell how much of its drift a repair undoes?

    Args:
        cells: one row per cell and method: model, seed, method, `drift` (points of HRR above the base), `undone`
            (percent of the drift), and a column for each of `PREDICTORS` that there is.
        resamples: draws of whole models for the intervals.
        seed: of these.

    Returns:
        One row per method and predictor, `CONTROL` last: method, predictor, models, cells; `rho`, Spearman's, with the
        95 % percentile interval over draws of models (`low`, `high`), and `given_drift`, the partial rank correlation
        given drift, with its own; NaN where a draw's ranks do not vary in most draws, or there are too few cells.
    """
    import pandas as pd

    names = [name for name in (*PREDICTORS, CONTROL) if name in cells]
    rows = []
    for method, own in cells.groupby("method", sort=False):
        for name in names:
            used = own.dropna(subset=[name, "undone"])
            about = {"method": method, "predictor": name, "models": used["model"].nunique(), "cells": len(used)}
            rows.append(about | _ranked(used, name, resamples, seed))
    return pd.DataFrame(rows)


def _ranked(cells: pd.DataFrame, name: str, resamples: int, seed: int) -> dict[str, float]:
    x, y, drift = (cells[column].to_numpy(np.float64) for column in (name, "undone", CONTROL))
    members = [np.flatnonzero((cells["model"] == model).to_numpy()) for model in cells["model"].unique()]
    generator = np.random.default_rng(seed)
    draws = [
        np.concatenate([members[place] for place in generator.integers(len(members), size=len(members))])
        for _ in range(resamples if len(cells) >= FEWEST else 0)
    ]

    def told(key: str, statistic: Callable[[NDArray[np.intp]], float]) -> dict[str, float]:
        value = statistic(np.arange(len(cells))) if len(cells) >= FEWEST else float("nan")
        drawn = np.array([statistic(places) for places in draws])
        known = drawn[~np.isnan(drawn)]
        ends = np.quantile(known, [0.025, 0.975]) if len(known) > len(drawn) / 2 else (float("nan"),) * 2
        return {key: value, f"{key}_low": float(ends[0]), f"{key}_high": float(ends[1])}

    found = told("rho", lambda at: _spearman(x[at], y[at]))
    if name == CONTROL:
        return found | dict.fromkeys(("given_drift", "given_drift_low", "given_drift_high"), float("nan"))
    return found | told("given_drift", lambda at: _given(x[at], y[at], drift[at]))


def _spearman(x: Vector, y: Vector) -> float:
    """Pearson's r of ranks; NaN where one of them does not vary."""
    from scipy.stats import rankdata

    if not (np.ptp(x) > 0 and np.ptp(y) > 0):
        return float("nan")
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _given(x: Vector, y: Vector, z: Vector) -> float:
    """Partial rank correlation r_xy·z = (r_xy - r_xz r_yz) / sqrt((1 - r_xz²)(1 - r_yz²))."""
    xy, xz, yz = _spearman(x, y), _spearman(x, z), _spearman(y, z)
    left = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / np.sqrt(left)) if left > 1e-12 else float("nan")
