"""Data files that the user names, and the digests that identify what is in them."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["as_test_split", "local_file", "local_folder", "read_goals", "read_records", "rows_digest"]


def local_file(metadata: Mapping[str, Any], key: str, variable: str) -> Path | None:
    """The local data file given as `--metadata '{"<key>": "/path"}'` or by an environment variable, if any.

    Raises:
        InputError: a file was given and is not there.
    """
    path = _given(metadata, key, variable)
    if path is not None and not path.is_file():
        raise InputError(f"There is no file {path} (given as metadata '{key}' or by ${variable}).")
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
    """Reads a CSV of `goal,target` into dicts of `prompt` and `target`, with no check of what the rows are.

    Args:
        path: the file.
        otherwise: ends the error message: which file is wanted.

    Raises:
        InputError: a column is missing or a cell is empty.
    """
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in ("goal", "target") if column not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{path} has no column {missing}; it has {reader.fieldnames}. {otherwise}")
        rows = [{"prompt": row["goal"] or "", "target": row["target"] or ""} for row in reader]
    empty = [index for index, row in enumerate(rows) if not (row["prompt"].strip() and row["target"].strip())]
    if empty or not rows:
        raise InputError(f"{path} has empty cells in rows {empty[:5]}." if rows else f"{path} has no rows. {otherwise}")
    return rows


def read_records(path: Path, columns: Sequence[str], otherwise: str) -> list[dict[str, Any]]:
    """The rows of a .csv, .jsonl or .json file (a list), with at least the given columns.

    Args:
        path: the file.
        columns: what every row must have.
        otherwise: ends the error message: which file is wanted.

    Raises:
        InputError: another kind of file, not readable as what it is called, or a row lacks a column.
    """
    readers = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".json": _json_rows}
    if path.suffix not in readers:
        raise InputError(f"{path} is no .csv, .jsonl or .json file. {otherwise}")
    rows = readers[path.suffix](path)
    for number, row in enumerate(rows, start=1):
        missing = [column for column in columns if not isinstance(row, dict) or row.get(column) is None]
        if missing:
            raise InputError(f"{path}, row {number}: no field {missing}. {otherwise}")
    return rows


def _csv_rows(path: Path) -> list[Any]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _jsonl_rows(path: Path) -> list[Any]:
    lines = enumerate(path.read_text(encoding="utf-8").split("\n"), start=1)
    return [_parsed(f"{path}, line {number}", line) for number, line in lines if line.strip()]


def _json_rows(path: Path) -> list[Any]:
    rows = _parsed(str(path), path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise InputError(f"{path} must hold a list of rows; it holds {type(rows).__name__}.")
    return rows


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}).") from error


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
