"""A loss landscape: losses on a grid of points around a model's weights, taken in place (equation 7).

    θ(a, b) = θ + a d_1 + b d_2,  a, b from -α to α

The sum is made in float32 from the kept origin and rounded once, never accumulated; at the end, and whatever happens,
the weights are what they were, to the last bit. Work is cut into lines of points: those of the grid, row by row, and
two cross-sections through the origin itself, which a grid of an even number of points does not have.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.moving import MovedWeights
from .directions import moved_weights
from .row_losses import RowLosses

__all__ = ["Plane", "Point", "Values", "lines_of", "walk"]

Point = tuple[float, float]
Values = dict[str, list[list[float]]]
"""Name of a set -> for each point of a line, the token-mean loss of each draw of its rows, in nats per token."""


@dataclass(frozen=True)
class Plane:
    """The points of a landscape."""

    points: int = 20
    reach: float = 0.01
    """α: the largest coordinate."""

    @property
    def coordinates(self) -> list[float]:
        """Evenly from -α to α."""
        return [float(value) for value in np.linspace(-self.reach, self.reach, self.points)]

    @property
    def section(self) -> list[float]:
        """The coordinates and 0, in order."""
        return sorted({*self.coordinates, 0.0})


def lines_of(plane: Plane) -> list[list[Point]]:
    """The rows of the grid (a fixed, b running), then the sections along d_1 and along d_2."""
    rows = [[(a, b) for b in plane.coordinates] for a in plane.coordinates]
    return [*rows, [(a, 0.0) for a in plane.section], [(0.0, b) for b in plane.section]]


def walk(
    model: Any,
    directions: Mapping[str, Tensor],
    losses: Mapping[str, RowLosses],
    draws: Mapping[str, Sequence[NDArray[np.int64]]],
    lines: Mapping[int, Sequence[Point]],
    tick: Callable[[int], None] = lambda points: None,
) -> Iterator[tuple[int, Values]]:
    """Goes through lines of points, one after the other.

    Args:
        model: a causal LM, or a PEFT model, whose adapter is merged meanwhile.
        directions: both, as `direction_file` writes them; for the same tensors.
        losses: set -> its rows.
        draws: set -> which of its rows belong to each draw.
        lines: number -> points.
        tick: called after each point with how many are done.

    Yields:
        The number of each line and its values. While the iterator is open the weights are away.

    Raises:
        InputError: a weight is quantised or offloaded, or a copy of the weights cannot be kept.
    """
    done = 0
    with _away(model, directions) as go:
        for number, points in lines.items():
            values: Values = {name: [] for name in losses}
            for point in points:
                go(point)
                for name, own in losses.items():
                    sums = own.sums(model)
                    values[name].append([float(sums[rows].sum() / own.counts[rows].sum()) for rows in draws[name]])
                done += 1
                tick(done)
            yield number, values


@contextmanager
def _away(model: Any, directions: Mapping[str, Tensor]) -> Iterator[Callable[[Point], None]]:
    """Yields what puts the weights at a point."""
    names, moved = list(moved_weights(model)), MovedWeights(model)

    @torch.no_grad()
    def go(point: Point) -> None:
        for name in names:
            _placed(
                moved.origin(name), directions[f"1:{name}"], directions[f"2:{name}"], point, moved.weights[name].data
            )

    try:
        yield go
    finally:
        moved.put_back()


def _placed(origin: Tensor, one: Tensor, two: Tensor, point: Point, out: Tensor) -> None:
    """Writes origin + a one + b two into `out`; float32 needs no more room."""
    origin, one, two = (tensor.to(out.device) for tensor in (origin, one, two))
    plain = out.dtype == torch.float32 and out.is_contiguous()
    if plain:
        torch.add(origin, one, alpha=point[0], out=out).add_(two, alpha=point[1])
    else:
        out.copy_(origin.float().add_(one.float(), alpha=point[0]).add_(two.float(), alpha=point[1]))
