"""Two methods on the same prompts: the paired test of each replica, and the hierarchical interval over all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .hierarchy import Comparison, Resampling, compare
from .statistics import Difference, Rate, mcnemar_exact, paired_difference, rate

__all__ = ["Paired", "Replica", "Verdicts", "paired"]

Verdicts = Sequence[bool | None]
"""Does each response count, by prompt? None where its verdict could not be parsed."""


class Replica(NamedTuple):
    """Both methods on one model with one seed."""

    model: str
    seed: int
    a: Rate
    b: Rate
    difference: Difference
    """a minus b."""
    p: float
    """Two-sided exact McNemar."""


@dataclass(frozen=True)
class Paired:
    """Two methods on the same prompts."""

    replicas: tuple[Replica, ...]
    """By model and seed, in the order given."""
    overall: Comparison | None
    """Mean of a minus mean of b over all replicas, in percentage points; None of a single one."""
    unit: str
    """What `overall.p_worlds` flips the signs of: "world", or "fine-tuning" where there is one model."""


def paired(pairs: Mapping[tuple[str, int], tuple[Verdicts, Verdicts]]) -> Paired:
    """Compares two methods in every replica, and over them.

    One replica: exact McNemar test and Newcombe's interval (`statistics`). Several: `hierarchy.compare`, which draws
    models, then fine-tunings, then prompts; of one model the fine-tunings are the units of its sign-flip test.

    Args:
        pairs: (model, seed) -> the verdicts of both methods on the same prompts in the same order.

    Raises:
        InputError: there are no prompts, some model lacks a seed that others have, or replicas have different numbers
            of prompts.
    """
    replicas = tuple(_replica(model, seed, a, b) for (model, seed), (a, b) in pairs.items())
    models, seeds = list(dict.fromkeys(model for model, _ in pairs)), list(dict.fromkeys(seed for _, seed in pairs))
    unit = "world" if len(models) > 1 else "fine-tuning"
    if len(replicas) == 1:
        return Paired(replicas, None, unit)
    if missing := [f"{model}, seed {seed}" for model in models for seed in seeds if (model, seed) not in pairs]:
        raise InputError(f"Not every model has every seed: {'; '.join(missing[:3])} is missing. Finish the run first.")
    if len(counts := {each.difference.n for each in replicas}) > 1:
        raise InputError(f"Replicas answered from {min(counts)} to {max(counts)} prompts. Give all the same limit.")
    a, b = ([[pairs[model, seed][side] for seed in seeds] for model in models] for side in (0, 1))
    # Of one model, fine-tunings are what is drawn first, and the units of the test.
    swap = len(models) == 1
    draws = Resampling(len(seeds), 1) if swap else Resampling(len(models), len(seeds))
    return Paired(replicas, compare(_arrays(a, swap), _arrays(b, swap), draws), unit)


def _replica(model: str, seed: int, a: Verdicts, b: Verdicts) -> Replica:
    return Replica(model, seed, _rate(a), _rate(b), paired_difference(a, b), mcnemar_exact(a, b))


def _rate(side: Verdicts) -> Rate:
    return rate(sum(x is True for x in side), len(side), sum(x is None for x in side))


def _arrays(grid: Sequence[Sequence[Verdicts]], swap: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """[worlds, fine-tunings, prompts], the first two swapped if told; 0 or 100, and with unparsed verdicts counted."""
    least = np.array([[[100.0 * (x is True) for x in row] for row in world] for world in grid])
    most = np.array([[[100.0 * (x is not False) for x in row] for row in world] for world in grid])
    return (least.swapaxes(0, 1), most.swapaxes(0, 1)) if swap else (least, most)
