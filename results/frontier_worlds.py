"""The frontier's replicas: which point of a method stands at a budget in each world and seed, and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .hierarchy import Resampling, estimate, sign_flip
from .identity import check_distinct_models, check_one_model_per_name

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_replicas", "chosen_at", "intervals", "lacking", "paired_p"]

REPLICA = ["model", "seed"]


def check_replicas(frame: pd.DataFrame, tuned: str, over_worlds: bool) -> None:
    """Refuses a frontier whose rows are no replicas of each other.

    Raises:
        InputError: several models without `over_worlds`, several under one name, the same one under several names, or
            what `lacking` finds.
    """
    names = list(dict.fromkeys(frame["model"]))
    models = list(zip(frame["model"], frame["model_digest"].fillna(""), strict=True))
    check_one_model_per_name(models)
    check_distinct_models(models)
    if len(names) > 1 and not over_worlds:
        raise InputError(
            f"Frontiers of {', '.join(names)} are not averaged: they are different models. Compare one at a time."
        )
    if missing := lacking(frame, tuned):
        method, without = next(iter(missing.items()))
        raise InputError(
            f"'{method}' has no finished row in {len(without)} replicas ({'; '.join(without[:3])}), and a mean over "
            "the others would favour it. Run `safebasin run` again to finish them, or leave the method out."
        )


def lacking(frame: pd.DataFrame, tuned: str) -> dict[str, list[str]]:
    """Methods on the frontier, and the fine-tuned model -> the worlds and seeds in which they have no finished row."""
    own = {method: _replicas(group) for method, group in frame.groupby("method", sort=False)}
    everywhere = list(dict.fromkeys(_replicas(frame)))
    swept = dict.fromkeys(frame.dropna(subset=["epsilon"])["method"])
    found = {}
    for method in (tuned, *swept):
        if missing := [
            f"{model}, seed {seed}" for model, seed in everywhere if (model, seed) not in own.get(method, [])
        ]:
            found[method] = missing
    return found


def _replicas(frame: pd.DataFrame) -> list[tuple[str, int]]:
    return list(zip(frame["model"], frame["seed"], strict=True))


def chosen_at(frame: pd.DataFrame, budget: float, tuned: str, reference: str) -> pd.DataFrame:
    """The point of each method on the frontier, and of the reference, in each world and seed, with its `budget`."""
    import pandas as pd

    bounds = {(row["model"], row["seed"]): row for row in frame[frame["method"] == tuned].to_dict("records")}
    chosen: list[dict[Any, Any]] = []
    compared = frame[frame["epsilon"].notna() | (frame["method"] == reference)]
    for (method, model, seed), group in compared.groupby(["method", *REPLICA], sort=False):
        points = group.sort_values("epsilon").to_dict("records")
        start = bounds[model, seed]
        within = [row for row in points if row["eval_loss"] <= start["eval_loss"] + budget]
        best = within[-1] if within else start
        chosen.append({**best, "method": method, "budget": budget})
    return pd.DataFrame(chosen)


def paired_p(group: pd.DataFrame, others: pd.DataFrame, name: str) -> float | None:
    """Over several worlds the sign-flip test of their means, else the t-test over seeds; None where all agree."""
    from scipy.stats import ttest_rel

    both = group.set_index(REPLICA)[name].to_frame("a").join(others.set_index(REPLICA)[name].to_frame("b"), how="inner")
    difference = (both["a"] - both["b"]).round(12)  # equal but for rounding is equal
    worlds = difference.groupby(level="model").mean()
    if len(worlds) > 1:
        return sign_flip(worlds.to_numpy()) if difference.abs().max() > 0 else None
    if len(both) < 2 or not difference.std() > 0:
        return None
    return float(ttest_rel(both["a"], both["b"]).pvalue)


def intervals(group: pd.DataFrame, measures: Sequence[str]) -> dict[str, float]:
    """`<measure>_low` and `_high` over worlds and seeds, of one method at one budget; prompts are not drawn."""
    worlds, seeds = group["model"].nunique(), group["seed"].nunique()
    draws = Resampling(worlds, seeds)
    found: dict[str, float] = {}
    for name in measures:
        made = estimate(group.pivot(index="model", columns="seed", values=name).to_numpy(dtype=float), draws)
        found |= {f"{name}_low": made.low, f"{name}_high": made.high}
    return found
