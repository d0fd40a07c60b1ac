"""The table of claims: each method over worlds and fine-tunings, with intervals, worst cases and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .hierarchy import RESAMPLES, Resampling, compare, estimate
from .identity import check_distinct_models
from .leaderboard import leaderboard
from .method_result import MethodResult
from .outcomes import HIGHER_IS_WORSE, Measured, measured, seeds_of
from .statistics import holm_column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TUNED", "default_reference", "replicas"]

TUNED = "lora"
"""The fine-tuned model, with which every method is compared."""


def default_reference(results: Sequence[MethodResult]) -> str | None:
    """The first post-hoc method listed: what other methods are compared with, beside `lora`."""
    return next((r.method for r in results if r.stage == "post-hoc"), None)


def replicas(results: Sequence[MethodResult], reference: str | None = None, resamples: int = RESAMPLES) -> pd.DataFrame:
    """The table of claims over worlds, from the complete rows of each world, method and seed.

    Means and intervals are those of `hierarchy.estimate`: worlds, then fine-tunings, then prompts are drawn, measures
    without outcomes per prompt only by the upper two. Differences are `hierarchy.compare`: paired by world, fine-tuning
    and prompt. `_p` is the sign-flip test over worlds, `_p_bootstrap` the bootstrap's; `_p_holm` corrects `_p` over the
    methods of one measure, `_p_holm_all` over all methods and measures (with W worlds no p is below 2 / 2^W, so that
    many tests may leave nothing to find).

    Args:
        results: of several worlds, each a model of its own with the same methods and seeds.
        reference: the method that others are compared with, beside `lora`; `default_reference` by default.
        resamples: draws of the bootstrap.

    Returns:
        One row per method and measure: method, stage, measure, worlds, finetunings (in each world; of the base, which
        has none, 1), prompts (empty without outcomes per prompt); mean, low, high; sd_worlds, the standard deviation of
        the worlds' means; worst, worst_world and worst_seed, the worst single fine-tuning, and worst_world_mean, the
        worst mean of a world; vs_lora and vs_reference with _low, _high, _p, _p_bootstrap, _p_holm, _p_holm_all; and
        reference. Rates in percent, losses in nats per token.

    Raises:
        InputError: a row is missing, two worlds are the same, one name stands for several worlds, or there is no
            method `reference`.
    """
    import pandas as pd

    frame = leaderboard(results)
    check_distinct_models((r.model, r.model_digest) for r in results)
    found = measured(results, frame)
    stages = {r.method: r.stage for r in results}
    if reference is not None and reference not in stages:
        raise InputError(f"There is no complete method '{reference}' to compare with; there are {', '.join(stages)}.")
    reference = reference or default_reference(results)
    worlds, seeds = list(dict.fromkeys(r.model for r in results)), seeds_of(results)
    draws = Resampling(len(worlds), len(seeds), resamples)
    rows = []
    for method, stage in stages.items():
        own = {name: values for (label, name), values in found.items() if label == method}
        for name, each in own.items():
            about = {"method": method, "stage": stage, "measure": name, "worlds": len(worlds)}
            about |= {"finetunings": 1 if stage == "base" else len(seeds), "prompts": _prompts(each)}
            about |= _mean(each, draws) | _worst(name, each, worlds, seeds)
            about |= _against("vs_lora", TUNED, method, found, name, draws)
            about |= _against("vs_reference", reference, method, found, name, draws)
            rows.append(about | {"reference": reference})
    return _corrected(pd.DataFrame(rows).astype({"prompts": "Int64"}))


def _prompts(each: Measured) -> int | None:
    return each.values.shape[2] if each.values.ndim == 3 else None


def _by_row(each: Measured) -> Any:
    """[worlds, fine-tunings]."""
    return each.values.mean(2) if each.values.ndim == 3 else each.values


def _mean(each: Measured, draws: Resampling) -> dict[str, Any]:
    worlds = _by_row(each).mean(1)
    found = estimate(each.values, draws, each.most)
    spread = float(worlds.std(ddof=1)) if len(worlds) > 1 else None
    return {"mean": found.value, "low": found.low, "high": found.high, "sd_worlds": spread}


def _worst(name: str, each: Measured, worlds: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """What "in every world" rests on. Of measures that are not `HIGHER_IS_WORSE`, more is better."""
    rows = _by_row(each)
    sign = 1 if name in HIGHER_IS_WORSE else -1
    world, seed = np.unravel_index((sign * rows).argmax(), rows.shape)
    return {
        "worst": float(rows[world, seed]),
        "worst_world": worlds[world],
        "worst_seed": seeds[seed],
        "worst_world_mean": float(sign * (sign * rows.mean(1)).max()),
    }


def _against(
    column: str,
    other: str | None,
    method: str,
    found: Mapping[tuple[str, str], Measured],
    name: str,
    draws: Resampling,
) -> dict[str, Any]:
    """The paired difference to another method; empty for the method itself, and where there is no such method."""
    if other is None or method == other or (other, name) not in found:
        keys = ("", "_low", "_high", "_p", "_p_bootstrap")
        return {f"{column}{key}": float("nan") for key in keys}
    made = compare(found[method, name], found[other, name], draws)
    return {
        column: made.value,
        f"{column}_low": made.low,
        f"{column}_high": made.high,
        f"{column}_p": made.p_worlds,
        f"{column}_p_bootstrap": made.p_bootstrap,
    }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Adds the corrected p-values behind each p."""
    for column in ("vs_lora", "vs_reference"):
        raw = table[f"{column}_p"]
        place = list(table.columns).index(f"{column}_p_bootstrap") + 1
        by_measure = raw.groupby(table["measure"]).transform(holm_column)
        table.insert(place, f"{column}_p_holm", by_measure)
        table.insert(place + 1, f"{column}_p_holm_all", holm_column(raw))
    return table
