"""A surface from above: coloured cells and contour lines, as rows of a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..html.specs import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVELS", "cells", "contour_lines"]

LEVELS = 8
"""Contour lines of a surface."""


def cells(surface: NDArray[np.float64], a: Sequence[float], b: Sequence[float], digits: int = 9) -> Iterator[Row]:
    """One row per point of the grid: kind `cell`, its ends (a, a2, b, b2) and its loss.

    Args:
        surface: [len(a), len(b)].
        a: evenly spaced.
        b: evenly spaced.
        digits: of the coordinates.
    """
    halves = [(axis[1] - axis[0]) / 2 for axis in (a, b)]
    for i, at in enumerate(a):
        for j, other in enumerate(b):
            ends = {
                "a": round(at - halves[0], digits),
                "a2": round(at + halves[0], digits),
                "b": round(other - halves[1], digits),
                "b2": round(other + halves[1], digits),
            }
            yield {"kind": "cell", **ends, "loss": round(float(surface[i, j]), 6)}


def contour_lines(
    surface: NDArray[np.float64], a: Sequence[float], b: Sequence[float], levels: Sequence[float] | None = None
) -> Iterator[Row]:
    """One row per point of a contour line: kind `line`, which line (wire), its place on it (at), a and b.

    Args:
        surface: [len(a), len(b)]; what is not finite has no lines.
        a: evenly spaced.
        b: evenly spaced.
        levels: heights of the lines; `LEVELS` evenly between the lowest and the highest point by default.
    """
    from contourpy import contour_generator

    finite = surface[np.isfinite(surface)]
    if not finite.size or not np.ptp(finite):
        return
    drawer = contour_generator(x=a, y=b, z=np.ma.masked_invalid(surface.T))
    chosen = np.linspace(finite.min(), finite.max(), LEVELS + 2)[1:-1] if levels is None else levels
    lines = [line for level in chosen for line in drawer.lines(float(level))]
    for wire, line in enumerate(lines):
        for at, (x, y) in enumerate(np.asarray(line)):
            yield {"kind": "line", "wire": wire, "at": at, "a": round(float(x), 7), "b": round(float(y), 7)}
