"""Correlations of two models' losses on the same rows, each with its interval, and the controls beside them.

Intervals are Fisher's: tanh(artanh r ± q s), q the normal quantile, s = 1/sqrt(n - 3) for Pearson's r,
sqrt((1 + r²/2) / (n - 3)) for Spearman's (Bonett and Wright 2000), 1/sqrt(n - 4) for the partial r given one variable.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "length_matched", "partial", "pearson", "shuffled", "spearman"]

Vector = NDArray[np.float64]
FEWEST = 5
"""Rows below which no correlation is told: Fisher's interval of a partial r needs them."""
DRAWS = 200
BLOCK = 5
"""Rows of like length among which `length_matched` exchanges."""


class Interval(NamedTuple):
    """A correlation and its 95 % interval; of a control, the mean over its draws and the range of 95 % of them."""

    r: float
    low: float
    high: float


NONE = Interval(math.nan, math.nan, math.nan)
"""Where there are too few rows, or all losses are the same."""


def pearson(x: Vector, y: Vector) -> Interval:
    """Pearson's r of two vectors [n]."""
    return _fisher(_r(x, y), len(x) - 3, 1.0) if _varies(x, y) else NONE


def spearman(x: Vector, y: Vector) -> Interval:
    """Spearman's r: Pearson's of the ranks, ties by their mean rank."""
    from scipy.stats import rankdata

    if not _varies(x, y):
        return NONE
    r = _r(rankdata(x), rankdata(y))
    return _fisher(r, len(x) - 3, 1 + r**2 / 2)


def partial(x: Vector, y: Vector, given: Vector) -> Interval:
    """Pearson's r of what a linear fit on `given` [n] leaves of x and of y."""
    if not _varies(x, y):
        return NONE
    design = np.stack([np.ones(len(given)), given], 1)
    left = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y)]
    # what is left of losses that follow the length exactly is rounding
    rest = [np.ptp(part) > 1e-9 * np.ptp(values) for part, values in zip(left, (x, y), strict=True)]
    return _fisher(_r(*left), len(x) - 4, 1.0) if all(rest) else NONE


def shuffled(x: Vector, y: Vector, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Pearson's r where each row is paired with a random other row: what chance alone gives."""
    generator = np.random.default_rng(seed)
    return _over(x, y, (generator.permutation(len(x)) for _ in range(draws)))


def length_matched(x: Vector, y: Vector, lengths: Vector, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Pearson's r where each row is paired with another one of about its length: what length alone gives.

    Rows are ordered by length, ties at random, and cut into blocks of `BLOCK`; within each, the losses of the second
    model move on by a random number of places, so that none stays with its own row.
    """
    generator = np.random.default_rng(seed)
    return _over(x, y, (_moved(lengths, generator) for _ in range(draws)))


def _moved(lengths: Vector, generator: np.random.Generator) -> NDArray[np.int64]:
    """Which row each row is paired with, [n]."""
    order = np.lexsort((generator.random(len(lengths)), lengths))
    found = np.empty_like(order)
    for block in np.array_split(order, max(1, len(order) // BLOCK)):
        found[block] = np.roll(block, generator.integers(1, len(block)))
    return found


def _over(x: Vector, y: Vector, pairings: Iterator[NDArray[np.int64]]) -> Interval:
    if not _varies(x, y):
        return NONE
    found = np.array([_r(x, y[places]) for places in pairings])
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(found.mean()), float(low), float(high))


def _varies(x: Vector, y: Vector) -> bool:
    return len(x) >= FEWEST and bool(np.ptp(x) > 0 and np.ptp(y) > 0)


def _r(x: Vector, y: Vector) -> float:
    one, two = x - x.mean(), y - y.mean()
    return float(np.clip(one @ two / math.sqrt((one @ one) * (two @ two)), -1, 1))


def _fisher(r: float, freedom: int, variance: float) -> Interval:
    from scipy.stats import norm

    if abs(r) == 1:
        return Interval(r, r, r)
    reach = float(norm.ppf(0.975)) * math.sqrt(variance / freedom)
    return Interval(r, math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach))
