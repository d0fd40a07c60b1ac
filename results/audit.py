"""Checks that any published table can be put through, from its printed numbers alone.

A table is a list of printed numbers (`COLUMNS`). What the checks find are questions to its authors, not verdicts: a
rate may be a mean of several runs, two rows may be equal by chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import combinations
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError
from ..registry import suggest

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("COLUMNS", "NUMBERS", "SECONDS", "Number", "Pair", "audit_pairs", "differing", "published", "read_numbers"),
    *("reachable", "repeated", "table_path", "times"),
]

COLUMNS = ("table", "group", "row", "column", "value", "unit")
"""Needed. `group` holds what is compared, for example a model; `unit` is `percent_prompts` for a share of n judged
prompts, `seconds`, `minutes` or `hours` for times, else free text. `part_of` (with `times`, 1 by default) and `same_as`
name another number as table/group/row/column; `source` says where it was printed."""
OPTIONAL = ("part_of", "times", "same_as", "source")
NUMBERS = (382, 200, 520)
"""AdvBench without the safety rows, as the paper says; a subset that would explain its halves; all of AdvBench."""
SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600}
"""Units of time."""
SHARED = 3
"""Columns in which two rows must agree, at least, to be called repeated."""


class Number(NamedTuple):
    """One printed number."""

    table: str
    group: str
    row: str
    column: str
    value: Decimal
    """As printed: its decimals say how it was rounded."""
    unit: str
    part_of: str = ""
    times: Decimal = Decimal(1)
    same_as: str = ""
    source: str = ""

    @property
    def name(self) -> str:
        """table/group/row/column."""
        return "/".join((self.table, self.group, self.row, self.column))

    @property
    def half(self) -> Decimal:
        """The most that rounding may have moved it."""
        exponent = self.value.as_tuple().exponent
        return Decimal(5).scaleb(int(exponent) - 1)


class Pair(NamedTuple):
    """Two rates of one group, and how far from chance their difference is at n prompts."""

    a: Number
    b: Number
    n: int
    p: float
    """Two-sided Fisher: as if the two had answered different prompts, as nothing is known by prompt."""
    p_least: float
    """Two-sided exact McNemar with all flips one way: the smallest p that the same prompts could give."""


def published() -> list[Path]:
    """The paper's tables that ship with the package."""
    return sorted((Path(__file__).parent / "published").glob("*.csv"))


def table_path(name: str) -> Path:
    """Where a table lies: one that ships, by its name, or a file.

    Raises:
        InputError: neither.
    """
    shipped = {path.stem: path for path in published()}
    if name not in shipped and not Path(name).is_file():
        raise InputError(f"no table '{name}' ships, and there is no such file. {suggest(name, shipped)}")
    return shipped.get(name, Path(name))


def read_numbers(path: Path) -> list[Number]:
    """Reads a table.

    Raises:
        InputError: the file cannot be read, lacks a column, or a value is no number.
    """
    import pandas as pd

    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}; give a CSV with the columns {', '.join(COLUMNS)}"
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no CSV: {error}; it needs the columns {', '.join(COLUMNS)}") from error
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it needs {', '.join(COLUMNS)}.")
    return [_number(row, f"{path}, line {line}") for line, row in _lines(frame)]


def _lines(frame: pd.DataFrame) -> Iterator[tuple[int, dict[str, str]]]:
    for place, row in enumerate(frame.to_dict("records")):
        yield place + 2, {str(name): str(value).strip() for name, value in row.items()}


def _number(row: dict[str, str], where: str) -> Number:
    kept = {name: row.get(name, "") for name in (*COLUMNS, *OPTIONAL)}
    value, often = _decimal(kept.pop("value"), where), _decimal(kept.pop("times") or "1", where)
    if kept["unit"] == "percent_prompts" and not 0 <= value <= 100:
        raise InputError(f"{where}: {value} is no percentage. Give a share of prompts from 0 to 100.")
    return Number(value=value, times=often, **kept)


def _decimal(text: str, where: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise InputError(f"{where}: '{text}' is no number. Give it as it was printed, for example 3.0.")
    return value


def reachable(value: Decimal, n: int) -> list[int]:
    """The counts k of which 100 k / n is printed as `value`, whichever way halves were rounded (the GRIM test).

    Args:
        value: percent, with the decimals that were printed.
        n: prompts.
    """
    half = Decimal(5).scaleb(int(value.as_tuple().exponent) - 1)
    low, high = ((value + sign * half) * n / 100 for sign in (-1, 1))
    return [k for k in range(max(0, ceil(low)), min(n, floor(high)) + 1)]


def repeated(numbers: Iterable[Number]) -> list[tuple[str, str, list[str]]]:
    """Pairs of rows that agree in most of the columns they share, and in three at least: (row, other row, columns)."""
    rows: dict[str, dict[str, Decimal]] = {}
    for number in numbers:
        rows.setdefault("/".join((number.table, number.group, number.row)), {})[number.column] = number.value
    found = []
    for (one, first), (other, second) in combinations(rows.items(), 2):
        alike = [column for column in first if column in second and first[column] == second[column]]
        # Not all: a row of benchmarks may have been copied beside a rate of its own.
        if len(alike) >= SHARED and len(alike) > len(set(first) & set(second)) / 2:
            found.append((one, other, alike))
    return found


def times(numbers: Sequence[Number]) -> list[tuple[Number, float, float]]:
    """Totals that are less than the sum of their parts: (total, its seconds at most, seconds of the parts at least).

    Raises:
        InputError: a part names no number, or is no time.
    """
    known = {number.name: number for number in numbers}
    parts: dict[str, float] = {}
    for number in numbers:
        if number.part_of:
            total = _named(number.part_of, number, known)
            for each in (number, total):
                if each.unit not in SECONDS:
                    raise InputError(f"{each.name} is in '{each.unit}', no time. Give {', '.join(SECONDS)}.")
            least = float((number.value - number.half) * number.times) * SECONDS[number.unit]
            parts[total.name] = parts.get(total.name, 0.0) + least
    totals = [(known[name], seconds) for name, seconds in parts.items()]
    most = [float(total.value + total.half) * SECONDS[total.unit] for total, _ in totals]
    return [(total, high, low) for (total, low), high in zip(totals, most, strict=True) if low > high]


def differing(numbers: Sequence[Number]) -> list[tuple[Number, Number]]:
    """Numbers that should be the same as another one (`same_as`) and are not.

    Raises:
        InputError: `same_as` names no number.
    """
    known = {number.name: number for number in numbers}
    pairs = [(number, _named(number.same_as, number, known)) for number in numbers if number.same_as]
    return [(one, other) for one, other in pairs if one.value != other.value]


def _named(name: str, by: Number, known: dict[str, Number]) -> Number:
    if name not in known:
        raise InputError(f"{by.name} names '{name}', which is in no table given. Write table/group/row/column.")
    return known[name]


def audit_pairs(numbers: Sequence[Number], n: int) -> list[Pair]:
    """Every pair of different rates in one group and column, with p at n prompts.

    Args:
        numbers: rates are those in `percent_prompts`.
        n: prompts behind each rate; counts are the nearest to the printed rates.
    """
    rates = [number for number in numbers if number.unit == "percent_prompts"]
    found = []
    for a, b in combinations(rates, 2):
        if (a.table, a.group, a.column) == (b.table, b.group, b.column) and a.value != b.value:
            found.append(_pair(a, b, n))
    return found


def _pair(a: Number, b: Number, n: int) -> Pair:
    from scipy.stats import binomtest, fisher_exact

    one, other = (round(float(number.value) * n / 100) for number in (a, b))
    p = float(fisher_exact([[one, n - one], [other, n - other]]).pvalue)
    flips = abs(one - other)
    return Pair(a, b, n, p, float(binomtest(0, flips).pvalue) if flips else 1.0)
