"""What landscapes have in common: the structural difference of equation 8, and percentiles of differences (table 8)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "Structure", "laplacian", "percentiles", "roughness", "structure"]

Grid = NDArray[np.float64]
PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)


class Structure(NamedTuple):
    """How unlike two landscapes are bent, in percent."""

    signed: float
    """(1 - r) 100, of the Laplacians' correlation r: 0 where they are bent alike, 200 where oppositely."""
    absolute: float
    """(1 - |r|) 100, as equation 8 has it: it takes valleys for peaks."""
    r: float


def laplacian(grid: Grid, step: float) -> Grid:
    """The five-point Laplacian on interior points: [n, m] -> [n - 2, m - 2]."""
    middle = grid[1:-1, 1:-1]
    return np.asarray((grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:] - 4 * middle) / step**2)


def structure(one: Grid, other: Grid) -> Structure:
    """The structural difference of two landscapes [n, n] on the same points; NaN where one is not bent at all."""
    a, b = (laplacian(grid, 1.0).ravel() for grid in (one, other))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float(a @ a) * float(b @ b))
    r = float(np.clip(a @ b / size, -1, 1)) if size else math.nan
    return Structure(100 * (1 - r), 100 * (1 - abs(r)), r)


def roughness(grid: Grid) -> float:
    """The share of the Laplacian's variance that no cubic polynomial of the place explains, in percent; NaN of a plane.

    A smooth loss is bent smoothly: what is left on a fine grid is rounding. Where it is most of the variance, a
    structural difference is one of rounding errors.
    """
    bent = laplacian(grid, 1.0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, size) for size in bent.shape), indexing="ij")
    terms = np.stack([x**i * y**j for i in range(4) for j in range(4 - i)], -1).reshape(bent.size, -1)
    left = bent.ravel() - terms @ np.linalg.lstsq(terms, bent.ravel(), rcond=None)[0]
    whole = float(((bent - bent.mean()) ** 2).sum())
    return 100 * float(left @ left) / whole if whole else math.nan


def percentiles(base: Grid, other: Grid) -> dict[str, tuple[float, float]]:
    """Of other - base over the grid: (raw, absolute) at each of `PERCENTILES`, and as mean and standard deviation."""
    raw = (other - base).ravel()
    both = (raw, np.abs(raw))
    found = {f"{p}th": (float(np.percentile(both[0], p)), float(np.percentile(both[1], p))) for p in PERCENTILES}
    found["mean"] = (float(both[0].mean()), float(both[1].mean()))
    found["std"] = (float(both[0].std(ddof=1)), float(both[1].std(ddof=1)))
    return found
