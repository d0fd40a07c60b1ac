"""Rates for each kind of request, where the data name kinds: a mean over all may hide the one that got worse."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .drift import MEASURES
from .method_result import MethodResult, Sample
from .outcomes import rate_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CATEGORIES", "by_category"]

CATEGORIES = ("model", "method", "stage", "seed", "measure", "category", "n", "rate", "low", "high")


def by_category(results: Iterable[MethodResult]) -> pd.DataFrame:
    """The rates of the leaderboard in percent, with Wilson 95 % intervals, for each kind of request.

    Requests whose data name no kind are in none of them; a role without kinds has no rows.

    Args:
        results: all results of a run.

    Returns:
        The columns of `CATEGORIES`, kinds in the order in which they come.
    """
    import pandas as pd

    rows = [
        row for result in results for role, samples in result.safety.items() for row in _rows(result, role, samples)
    ]
    return pd.DataFrame(rows, columns=list(CATEGORIES))


def _rows(result: MethodResult, role: str, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    kinds: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.category:
            kinds.setdefault(sample.category, []).append(sample)
    about = {"model": result.model, "method": result.method, "stage": result.stage, "seed": result.seed}
    found = []
    for category, own in kinds.items():
        of = rate_of(MEASURES[role], own)
        ends = {"n": len(own), "rate": of.value, "low": of.low, "high": of.high}
        found.append(about | {"measure": MEASURES[role], "category": category} | ends)
    return found
