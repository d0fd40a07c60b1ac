"""Rows from where a user says they are: a file, or a data set on the hub."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError, listed
from ..hub import HubData
from .conversations import Unusable
from .formats import FORMATS, Table, format_of, read_table, table_of
from .shapes import Shape, check_columns, row_of, shape_of

__all__ = ["Rows", "is_hub", "read_columns", "read_rows"]

_HUB = re.compile(
    r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.-]+))?:(?P<split>[\w.\[\]%-]+)"
)


@dataclass(frozen=True)
class Rows:
    """Rows, and how they were read."""

    rows: list[dict[str, Any]]
    """Each with `prompt`, and where it has them `response`, `target` and `refusal` (texts) and `before`: the turns
    before the prompt, each with `role` and `content`. What is absent, null or empty has no key. `harmful` (true or
    false) is there where it was needed."""
    said: str
    """One line for the user: how many rows, of which shape, and which columns were not read."""


def is_hub(source: str) -> bool:
    """Whether a source is written like a data set on the hub: `owner/name[@revision][:config]:split`."""
    return _HUB.fullmatch(source) is not None and format_of(source) is None


def read_columns(text: str, at: str = "--columns") -> dict[str, str]:
    """Reads `prompt=question,response=answer`.

    Raises:
        InputError: it is of another form, or names an unknown role.
    """
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(role.strip() and equals and column.strip() for role, equals, column in pairs):
        raise InputError(f"{at} '{text}' is not of the form ROLE=COLUMN, for example prompt=question,response=answer.")
    columns = {role.strip(): column.strip() for role, _, column in pairs}
    check_columns(columns, at)
    return columns


def read_rows(source: str, needs: Sequence[str] = ("prompt",), columns: Mapping[str, str] | None = None) -> Rows:
    """Reads rows of any known format and shape.

    Args:
        source: path of a file, or of a part of its rows (`FILE[first:end]`), or a data set on the hub as
            `owner/name[@revision][:config]:split`.
        needs: what every row must have: `prompt`, for rows to train on `response`, for labelled ones `harmful`.
        columns: role -> column, where the names do not tell (see `shapes.ROLES`).

    Raises:
        InputError: it cannot be had or read, its columns do not tell its shape; or all of its rows that are unusable.
    """
    table = _table(source)
    check_columns(columns or {})
    if not table.records:
        raise InputError(_refused(source, table.faults, len(table.faults)))
    shape = shape_of(table, source, needs, columns or {})
    faults, rows = list(table.faults), []
    for record in table.records:
        try:
            rows.append(row_of(record, shape, needs))
        except Unusable as error:
            faults.append(f"{record.place}: {error}.")
    if faults:
        raise InputError(_refused(source, faults, len(table.records) + len(table.faults)))
    return Rows(rows, _said(source, table, shape))


def _table(source: str) -> Table:
    exists, named = Path(source).expanduser().exists(), _HUB.fullmatch(source)
    if exists or format_of(source):
        return read_table(source)
    if named is None:
        raise InputError(
            f"'{source}' is neither a file of rows ({', '.join(FORMATS)}, each also with .gz) nor a data set on the "
            "hub with its split, such as owner/name:train."
        )
    otherwise = "Or download it, and give the path of the file."
    rows = HubData(named["name"], named["revision"] or "main", otherwise, named["config"]).table((), named["split"])
    places = (f"row {number}" for number in range(1, len(rows) + 1))
    return table_of(rows, places, source, rows.column_names)


def _refused(source: str, faults: Sequence[str], total: int) -> str:
    ordered = sorted(faults, key=lambda fault: int((re.findall(r"\d+", fault) or ["0"])[0]))
    return f"'{source}': {len(faults)} of {total} rows cannot be used. Mend or remove them:\n{listed(ordered)}"


def _said(source: str, table: Table, shape: Shape) -> str:
    read = {column: role for role, column in shape.columns.items()}
    used: list[str] = []
    unused: list[str] = []
    for name in table.columns:
        role = read.get(name.strip().casefold())
        (used if role else unused).append(f"{name} as {role}" if role and role != name else name)
    left = f"; not read: {', '.join(unused)}" if unused else ""
    return f"{source}: {len(table.records)} rows, shape {shape.name}: {', '.join(used)}{left}"
