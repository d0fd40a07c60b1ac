"""Published numbers beside measured ones, cell by cell, and whether the one lies in the interval of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from .audit import SECONDS, Number
from .columns import AFTER_UTILITY, BEFORE_UTILITY, GRADED
from .display import Row, records
from .statistics import wilson
from .text import storable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BESIDE", "Documents", "Places", "beside"]

BESIDE = {
    **dict.fromkeys(("table", "group", "row", "column", "unit"), "str"),
    **dict.fromkeys(("published", "rounding"), "float64"),
    **dict.fromkeys(("model", "method"), "str"),
    "seed": "Int64",
    "measured_as": "str",
    **dict.fromkeys(("measured", "measured_low", "measured_high", "difference"), "float64"),
    "inside": "str",
}
"""Columns and their types. `rounding`: the most that rounding may have moved the published value; `measured_as`: the
column of leaderboard.csv; `difference`: measured minus published; `inside`: yes, no, or empty where there is no
interval."""

Documents = Mapping[tuple[str, str, int], Mapping[str, int]]
"""(model, method, seed) -> column -> how many documents its share is of."""
_WITH_INTERVAL = {
    name.removesuffix("_low") for name in (*BEFORE_UTILITY, *AFTER_UTILITY, *GRADED) if name.endswith("_low")
}
SLACK = 1e-9
"""Ends that touch, touch: their binary fractions may differ."""


@dataclass(frozen=True)
class Places:
    """Where the numbers of one table go."""

    models: Mapping[str, str]
    """Group -> model."""
    rows: Mapping[str, str]
    """Row, or `group/row`, which goes before -> method."""
    columns: Mapping[str, str]
    """Column -> column of the leaderboard, in the order in which they are shown."""

    def key(self, number: Number) -> str | None:
        """The key of `rows` that places a number; None where it has no place."""
        if number.group not in self.models or number.column not in self.columns:
            return None
        keys = (f"{number.group}/{number.row}", number.row)
        return next((key for key in keys if key in self.rows), None)


class _Value(NamedTuple):
    """A published value in the unit of the leaderboard."""

    value: Decimal
    half: Decimal
    unit: str


def beside(
    numbers: Sequence[Number], places: Places, frame: pd.DataFrame, documents: Documents | None = None
) -> pd.DataFrame:
    """Each placed number with what was measured in its place: a line for every seed.

    The interval is that of the leaderboard (`hrr_low` to `hrr_high`), which is of prompts and not of fine-tunings, or
    Wilson's for a share of `documents`; where there is neither, `inside` is empty. A published value was rounded: it
    lies inside if any value that is printed so does. Published times become minutes. A failed row, and what was not
    measured, has no `measured`.

    Args:
        numbers: of the table.
        places: where they go; numbers without a place are left out.
        frame: the leaderboard.
        documents: for columns that are shares of documents, in percent.

    Returns:
        The columns BESIDE; sorted by column of `places`, then as `numbers` are.
    """
    import pandas as pd

    measured: dict[tuple[str, str], list[Row]] = {}
    for row in records(frame):
        measured.setdefault((row["model"], row["method"]), []).append(row)
    lines = []
    for column in places.columns:
        for number in numbers:
            key = places.key(number) if number.column == column else None
            if key is not None:
                at = (storable(places.models[number.group]), storable(places.rows[key]))
                for row in measured.get(at, [{}]):
                    lines.append(_line(number, at, places.columns[column], row, documents or {}))
    return pd.DataFrame(lines, columns=[*BESIDE]).astype(BESIDE)


def _line(number: Number, at: tuple[str, str], column: str, row: Row, documents: Documents) -> dict[str, Any]:
    model, method = at
    found = {name: getattr(number, name) for name in ("table", "group", "row", "column")}
    given = _in_minutes(number)
    value = row.get(column) if row.get("status") == "ok" else None
    ends = None if value is None else _interval(column, row, documents)
    return {
        **found,
        "unit": given.unit,
        "published": float(given.value),
        "rounding": float(given.half),
        **{"model": model, "method": method, "seed": row.get("seed"), "measured_as": column},
        "measured": value,
        "measured_low": ends[0] if ends else None,
        "measured_high": ends[1] if ends else None,
        "difference": None if value is None else value - float(given.value),
        "inside": "" if ends is None else "yes" if _touches(given, ends) else "no",
    }


def _in_minutes(number: Number) -> _Value:
    """The value; a time in minutes."""
    if number.unit not in SECONDS:
        return _Value(number.value, number.half, number.unit)
    share = Decimal(SECONDS[number.unit]) / SECONDS["minutes"]
    return _Value(number.value * share, number.half * share, "minutes")


def _interval(column: str, row: Row, documents: Documents) -> tuple[float, float] | None:
    """That of the leaderboard, or Wilson's of a share, in percent."""
    if column in _WITH_INTERVAL:
        return float(row[f"{column}_low"]), float(row[f"{column}_high"])
    n = documents.get((row["model"], row["method"], row["seed"]), {}).get(column)
    if not n:
        return None
    ends = wilson(row[column] / 100 * n, n)
    return 100 * ends[0], 100 * ends[1]


def _touches(given: _Value, ends: tuple[float, float]) -> bool:
    low, high = float(given.value - given.half), float(given.value + given.half)
    return high >= ends[0] - SLACK and low <= ends[1] + SLACK
