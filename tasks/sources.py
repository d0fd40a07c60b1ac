"""Where the data sets come from: a local file named by the user, or the hub; and the digests that identify them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["as_test_split", "hub_rows", "local_file", "rows_digest"]


def local_file(metadata: Mapping[str, Any], key: str, variable: str) -> Path | None:
    """The local data file given as `--metadata '{"<key>": "/path"}'` or by an environment variable, if any.

    Raises:
        InputError: a file was given and is not there.
    """
    given = metadata.get(key) or os.environ.get(variable)
    if not given:
        return None
    path = Path(str(given)).expanduser()
    if not path.is_file():
        raise InputError(f"There is no file {path} (given as metadata '{key}' or by ${variable}).")
    return path


def hub_rows(name: str, revision: str | None, columns: Sequence[str], otherwise: str) -> list[dict[str, Any]]:
    """The rows of a hub data set's `train` split, the named columns only.

    Args:
        name: hub id.
        revision: full commit hash, or None for the newest.
        columns: the columns that must be there.
        otherwise: ends the error message: how to give the data another way.

    Raises:
        InputError: it cannot be had (offline, gated, moved), or lacks a column.
    """
    from datasets import load_dataset

    try:
        table = load_dataset(name, revision=revision, split="train")
    except (OSError, ValueError) as error:  # the hub's own errors (offline, gated, not found) are OSErrors
        raise InputError(f"The data set {name} cannot be loaded: {error}\n{otherwise}") from error
    missing = [column for column in columns if column not in table.column_names]
    if missing:
        raise InputError(f"The data set {name} has no column {missing}; it has {table.column_names}. {otherwise}")
    return [{column: row[column] for column in columns} for row in table]


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
