"""Landscapes as tables: surfaces, cross-sections, structural differences with their noise floors, percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .landscape import Plane, Values, lines_of
from .structure import percentiles, roughness, structure

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Surfaces"]

DRAWS = 2
"""Draws of rows: one for the landscape, and one that tells what another draw would have given."""


@dataclass(frozen=True)
class Surfaces:
    """The landscapes of several models on the same points."""

    plane: Plane
    values: Mapping[str, Sequence[Values]]
    """Model -> the values of each of `lines_of`."""
    others: Mapping[str, Sequence[Values]]
    """The same along other directions, of the models that were taken along them."""
    base: str = "base"

    def grid(self, model: str, name: str, draw: int, other: bool = False) -> NDArray[np.float64]:
        """One surface [points, points], rows along the first direction."""
        lines = (self.others if other else self.values)[model][: self.plane.points]
        return np.array([[point[draw] for point in line[name]] for line in lines])

    @property
    def sets(self) -> list[str]:
        """What losses were taken on."""
        return list(self.values[self.base][0])

    def table(self) -> pd.DataFrame:
        """One row per model, set, draw and point of the grid: a and b, in units of the directions, and the loss."""
        import pandas as pd

        return pd.DataFrame(self._points(list(lines_of(self.plane))[: self.plane.points], 0)).drop(columns="line")

    def sections(self) -> pd.DataFrame:
        """The same of the cross-sections through the origin; `direction` is 1 or 2."""
        import pandas as pd

        found = pd.DataFrame(self._points(list(lines_of(self.plane))[self.plane.points :], self.plane.points))
        return found.assign(direction=found["line"] + 1).drop(columns="line")

    def _points(self, lines: Sequence[Any], first: int) -> Iterator[dict[str, Any]]:
        for model, values in self.values.items():
            for number, line in enumerate(lines):
                for name, own in values[first + number].items():
                    for (a, b), losses in zip(line, own, strict=True):
                        for draw, loss in enumerate(losses, start=1):
                            about = {"model": model, "set": name, "draw": draw, "line": number}
                            yield {**about, "a": a, "b": b, "loss": loss}

    def structures(self) -> pd.DataFrame:
        """The structural difference of each model and the base, on each draw, and its noise floors.

        Returns:
            set, compared, kind (`models`, `rows` for one model on both draws, `directions` for one model along two
            pairs of directions), draw, signed and absolute (percent), r, spread (the range of the first
            surface, in nats), and rough (the larger `roughness` of the two, in percent).
        """
        import pandas as pd

        return pd.DataFrame(list(self._structures()))

    def _structures(self) -> Iterator[dict[str, Any]]:
        for name in self.sets:
            pairs: list[tuple[str, str, int, Any, Any]] = []
            for model in self.values:
                both = [self.grid(model, name, draw) for draw in range(DRAWS)]
                if model != self.base:
                    for draw in range(DRAWS):
                        compared, own = f"{self.base} and {model}", self.grid(self.base, name, draw)
                        pairs.append((compared, "models", draw + 1, own, both[draw]))
                pairs.append((f"{model}, two draws of rows", "rows", 0, both[0], both[1]))
            for model in self.others:
                one, two = self.grid(model, name, 0), self.grid(model, name, 0, other=True)
                pairs.append((f"{model}, two pairs of directions", "directions", 1, one, two))
            for compared, kind, draw, first, second in pairs:
                found = structure(first, second)
                yield {
                    **{"set": name, "compared": compared, "kind": kind, "draw": draw, "signed": found.signed},
                    **{"absolute": found.absolute, "r": found.r, "spread": float(np.ptp(first))},
                    "rough": max(roughness(first), roughness(second)),
                }

    def percentiles(self) -> pd.DataFrame:
        """Table 8: percentiles of each model's losses less the base's over the grid, raw and absolute, first draw."""
        import pandas as pd

        rows = []
        for name in self.sets:
            for model in self.values:
                if model != self.base:
                    found = percentiles(self.grid(self.base, name, 0), self.grid(model, name, 0))
                    about = {"set": name, "model": model}
                    rows += [
                        {**about, "percentile": at, "raw": raw, "absolute": size} for at, (raw, size) in found.items()
                    ]
        return pd.DataFrame(rows)
