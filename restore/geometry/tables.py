"""Tables of losses and of what they say: one row per example, per mean and per correlation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .correlation import length_matched, partial, pearson, shuffled, spearman

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BASE", "correlations", "means"]

BASE = "base"
"""The model that all others are compared with."""
KEYS = ["set", "target"]


def means(losses: pd.DataFrame) -> pd.DataFrame:
    """The mean loss of each model on each set and target, with its 95 % interval (Student's t).

    Args:
        losses: one row per example, with the columns set, target, row, tokens, model and loss (nats per token).
    """
    import pandas as pd
    from scipy.stats import t

    rows = []
    for (*key, model), group in losses.groupby([*KEYS, "model"], sort=False):
        n, mean, spread = len(group), float(group["loss"].mean()), float(group["loss"].std())
        reach = float(t.ppf(0.975, n - 1)) * spread / n**0.5 if n > 1 else float("nan")
        about = {**dict(zip(KEYS, key, strict=True)), "model": model, "n": n, "mean": mean, "std": spread}
        rows.append(about | {"low": mean - reach, "high": mean + reach, "tokens": float(group["tokens"].mean())})
    return pd.DataFrame(rows)


def correlations(losses: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """The correlations of each model's losses with the base's, over the rows that both have (table 1 of the paper).

    Args:
        losses: as for `means`.
        seed: of the controls' draws.

    Returns:
        set, target, model, n; `pearson`, `spearman`, `partial` (given the number of tokens), `sums` (of losses summed
        over tokens, where length enters by itself), `shuffled` and `matched` (controls), each with `_low` and `_high`.
    """
    import pandas as pd

    return pd.DataFrame(list(_rows(losses, seed)))


def _rows(losses: pd.DataFrame, seed: int) -> Iterator[dict[str, Any]]:
    for key, group in losses.groupby(KEYS, sort=False):
        table = group.pivot(index="row", columns="model", values="loss")
        tokens = group.drop_duplicates("row").set_index("row")["tokens"]
        for model in [name for name in dict.fromkeys(group["model"]) if name != BASE]:
            both = table[[BASE, model]].dropna()
            x, y = both[BASE].to_numpy(np.float64), both[model].to_numpy(np.float64)
            length = tokens[both.index].to_numpy(np.float64)
            found = {
                "pearson": pearson(x, y),
                "spearman": spearman(x, y),
                "partial": partial(x, y, length),
                "sums": pearson(x * length, y * length),
                "shuffled": shuffled(x, y, seed),
                "matched": length_matched(x, y, length, seed),
            }
            told = {**dict(zip(KEYS, key, strict=True)), "model": model, "n": len(both)}
            for name, value in found.items():
                told |= {name: value.r, f"{name}_low": value.low, f"{name}_high": value.high}
            yield told
