"""Does a repair hold over worlds? Steps to half the drift in all of them, and in how many a method holds longer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf, nan
from typing import TYPE_CHECKING, Any

from .method_result import MethodResult
from .relapse import Half, half_levels, half_of
from .statistics import holm_column

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["relapse_over_worlds"]

BASE = "base"
Halves = Mapping[str, Mapping[int, Half]]
"""World -> seed -> steps to half the drift."""


def relapse_over_worlds(results: Sequence[MethodResult], reference: str | None = None) -> pd.DataFrame:
    """Steps to half the drift over worlds, and paired tests of which method holds longer.

    Steps that were not reached are larger than any number, so that medians and orders are of all rows. A world counts
    for the method whose rows of most of its seeds come back later; no test is made of how much later.

    Args:
        results: of several worlds. A base, which has one row in each, stands for every seed.
        reference: the method that others are compared with, beside the base.

    Returns:
        One row per fine-tuning and method: attack, method, stage, worlds (of which `lora` drifted), rows (of all seeds)
        and reached, how many of them came back; `median`, the steps by which half of the rows had, `least` and `most`,
        as text (`Half.text`); vs_base_later and _sooner, the worlds in which it came back later and sooner than the
        base; _p, the two-sided exact sign test over these, and _p_holm, corrected over the methods of one fine-tuning;
        the same as vs_reference; and reference.
    """
    import pandas as pd

    found: dict[str, dict[str, dict[str, dict[int, Half]]]] = {}
    for result, attack, seed, half in _halves(results):
        found.setdefault(attack, {}).setdefault(result.method, {}).setdefault(result.model, {})[seed] = half
    stages = {result.method: result.stage for result in results}
    rows = [
        {"attack": attack, "method": method, "stage": stages[method]}
        | _summary([half for seeds in own.values() for half in seeds.values()], len(own))
        | _against("vs_base", own, None if method == BASE else methods.get(BASE))
        | _against("vs_reference", own, None if method == reference else methods.get(reference or ""))
        | {"reference": reference}
        for attack, methods in found.items()
        for method, own in methods.items()
    ]
    table = pd.DataFrame(rows)
    for column in ("vs_base", "vs_reference") if rows else ():
        corrected = table.groupby("attack", sort=False)[f"{column}_p"].transform(holm_column)
        table.insert(list(table.columns).index(f"{column}_p") + 1, f"{column}_p_holm", corrected)
    return table


def _halves(results: Sequence[MethodResult]) -> Iterator[tuple[MethodResult, str, int, Half]]:
    """With the fine-tuning and the seed; a base's curve is read at the level of each seed's `lora`."""
    levels = half_levels(results)
    for result in results:
        for (model, seed, attack), level in levels.items():
            relapse = result.relapse.get(attack)
            if model == result.model and relapse and relapse.samples and (result.stage == BASE or seed == result.seed):
                yield result, attack, seed, half_of(relapse, level)


def _steps(half: Half) -> float:
    return half.steps if half.reached else inf


def _summary(found: Sequence[Half], worlds: int) -> dict[str, Any]:
    ordered = sorted(found, key=_steps)
    return {
        "worlds": worlds, "rows": len(ordered), "reached": sum(half.reached for half in ordered),
        "median": ordered[(len(ordered) - 1) // 2].text, "least": ordered[0].text, "most": ordered[-1].text,
    }  # fmt: skip


def _against(column: str, own: Halves, other: Halves | None) -> dict[str, Any]:
    from scipy.stats import binomtest

    if other is None:
        return {f"{column}_later": nan, f"{column}_sooner": nan, f"{column}_p": nan}
    votes = [sum(_signs(own[world], other[world])) for world in own if world in other]
    later, sooner = sum(vote > 0 for vote in votes), sum(vote < 0 for vote in votes)
    p = float(binomtest(later, later + sooner).pvalue) if later + sooner else 1.0
    return {f"{column}_later": later, f"{column}_sooner": sooner, f"{column}_p": p}


def _signs(own: Mapping[int, Half], other: Mapping[int, Half]) -> Iterator[int]:
    """For each seed that both have: 1 where the one comes back later, -1 where the other does."""
    for seed in own.keys() & other.keys():
        one, two = _steps(own[seed]), _steps(other[seed])
        yield (one > two) - (one < two)
