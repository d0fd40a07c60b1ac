"""Data files that the user names, and the digests that identify what is in them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, listed
from .rows.formats import read_table

__all__ = ["as_test_split", "local_file", "local_folder", "read_goals", "read_records", "rows_digest"]


def local_file(metadata: Mapping[str, Any], key: str, variable: str) -> Path | None:
    """The local data file given as `--metadata '{"<key>": "/path"}'` or by an environment variable, if any.

    Raises:
        InputError: a file was given and is not there.
    """
    path = _given(metadata, key, variable)
    if path is not None and not path.is_file():
        raise InputError(f"There is no file '{path}' (given as metadata '{key}' or by ${variable}).")
    return path


def local_folder(metadata: Mapping[str, Any], key: str, variable: str) -> Path | None:
    """As `local_file`, for a folder of data files.

    Raises:
        InputError: a folder was given and is not there.
    """
    path = _given(metadata, key, variable)
    if path is not None and not path.is_dir():
        raise InputError(f"There is no folder {path} (given as metadata '{key}' or by ${variable}).")
    return path


def _given(metadata: Mapping[str, Any], key: str, variable: str) -> Path | None:
    given = metadata.get(key) or os.environ.get(variable)
    return Path(str(given)).expanduser() if given else None


def read_goals(path: Path, otherwise: str = "") -> list[dict[str, str]]:
    """Reads a file with `goal` and `target` into dicts of `prompt` and `target`, with no check of what the rows are.

    Args:
        path: the file.
        otherwise: ends the error message: which file is wanted.

    Raises:
        InputError: a column is missing or a cell is empty.
    """
    records = read_records(path, ("goal", "target"), otherwise)
    rows = [{"prompt": str(record["goal"]), "target": str(record["target"])} for record in records]
    empty = [index for index, row in enumerate(rows) if not (row["prompt"].strip() and row["target"].strip())]
    if empty:
        raise InputError(f"{path} has empty cells in rows {empty[:5]}.")
    return rows


def read_records(path: Path, columns: Sequence[str], otherwise: str) -> list[dict[str, Any]]:
    """The rows of a file of any format that `rows.formats` knows, with at least the given columns.

    Args:
        path: the file.
        columns: what every row must have.
        otherwise: ends the error message: which file is wanted.

    Raises:
        InputError: it cannot be read, or all of its rows that lack a column.
    """
    table = read_table(str(path))
    missing = [name for name in columns if name not in table.columns]
    if missing and table.records:
        raise InputError(f"'{path}' has no column {missing}; it has {list(table.columns)}. {otherwise}")
    lacking = {record.place: [name for name in columns if name not in record.cells] for record in table.records}
    faults = [*table.faults, *(f"{place}: no field {names}." for place, names in lacking.items() if names)]
    if faults:
        raise InputError(f"'{path}': {len(faults)} rows cannot be used:\n{listed(faults)}\n{otherwise}")
    return [{name: record.cells.get(name) for name in table.columns} for record in table.records]


def rows_digest(rows: Iterable[Sequence[str]]) -> str:
    """SHA-256 over the rows' text, the same for a CSV and for the hub's parquet of the same rows."""
    text = json.dumps([list(row) for row in rows], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def as_test_split(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The rows as lm-eval's `custom_dataset` wants them: one split named `test`.

    Raises:
        InputError: there are no rows.
    """
    from datasets import Dataset

    if not rows:
        raise InputError("The data set has no rows.")
    return {"test": Dataset.from_list([dict(row) for row in rows])}
