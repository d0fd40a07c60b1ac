"""Writes the leaderboard as CSV (for programs) and Markdown (for people), each in one atomic step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, check_disk
from .columns import AFTER_UTILITY, BEFORE_UTILITY, TEXT_COLUMNS, column_types, utility_columns
from .display import Column, Row, displayed, failures, heading, records, remarks
from .identity import check_one_model_per_name
from .text import csv_cell, from_csv_cell, markdown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv_text", "make_folder", "read_csv", "replace_text", "write_csv", "write_markdown", "write_table"]


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes the leaderboard as CSV: UTF-8, numbers with up to 6 significant digits, empty where there is no value.

    Raises:
        InputError: the file cannot be written.
    """
    write_table(frame, path)


def write_table(frame: pd.DataFrame, path: Path, digits: int = 6) -> None:
    """Writes any table as `write_csv` does, numbers with up to so many significant digits.

    Raises:
        InputError: the file cannot be written.
    """
    replace_text(path, csv_text(frame, digits))


def csv_text(frame: pd.DataFrame, digits: int = 6) -> str:
    """Any table as CSV, as `write_csv` writes it. Text is inert: no spreadsheet computes it (`text.csv_cell`)."""
    safe = frame.rename(columns=lambda name: csv_cell(str(name)))
    for place in range(safe.shape[1]):
        if not _is_plain(safe.dtypes.iloc[place]):
            cells = safe.iloc[:, place].astype(object)
            safe.isetitem(place, [csv_cell(cell) if isinstance(cell, str) else cell for cell in cells])
    return str(safe.to_csv(index=False, float_format=f"%.{digits}g", lineterminator="\n"))


def _is_plain(kind: Any) -> bool:
    """Whether a column's type has numbers or truth values alone."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(kind) or is_bool_dtype(kind))


def read_csv(path: Path) -> pd.DataFrame:
    """Reads what `write_csv` wrote, with the same column types.

    Raises:
        InputError: the file cannot be read, is not a leaderboard, or was put together from several that do not belong
            together.
    """
    import pandas as pd

    try:
        # Only an empty field is empty: a model may be called "null" or "NA".
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name the leaderboard.csv of a run folder") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not CSV text: {error}; run `safebasin report` to write it again") from error
    frame = frame.rename(columns=from_csv_cell).map(lambda cell: from_csv_cell(cell) if isinstance(cell, str) else cell)
    if missing := [name for name in (*BEFORE_UTILITY, *AFTER_UTILITY) if name not in frame.columns]:
        raise InputError(
            f"{path} is not a leaderboard: it lacks the columns {', '.join(missing)}; "
            "run `safebasin report` to write it again"
        )
    _check_rows(frame, path)
    try:
        return frame.astype(column_types(list(frame.columns)))
    except ValueError as error:
        raise InputError(f"{path} has a bad value: {error}; run `safebasin report` to write it again") from error


def _check_rows(frame: pd.DataFrame, path: Path) -> None:
    check_one_model_per_name(zip(frame["model"], frame["model_digest"].fillna(""), strict=True))
    twice = frame[frame.duplicated(["model", "method", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise InputError(
            f"{path} has {row['model']} / {row['method']} / seed {row['seed']} more than once: a row that is copied is "
            "no replica. Keep one of them."
        )


def write_markdown(frame: pd.DataFrame, path: Path, notes: Sequence[str] = ()) -> None:
    """Writes the leaderboard as a Markdown table with a footnote for each column.

    Args:
        frame: the leaderboard.
        path: the file to write.
        notes: sentences about this run, put between table and footnotes.

    Raises:
        InputError: the file cannot be written.
    """
    blocks = [f"# Leaderboard: {markdown(heading(frame))}".removesuffix(": "), _markdown_table(frame)]
    # A reason is a program's own words: as code, nothing in it is taken for markup.
    failed = [f"**{markdown(row.which)} failed**: `{row.why.replace('`', chr(39))}`" for row in failures(frame)]
    blocks += [_bullets(group) for group in (failed, [*remarks(frame), *notes]) if group]
    blocks.append("What the columns mean (a dash: no value):")
    shown = displayed(frame, "markdown")
    blocks.append(_bullets(f"**{_header(column, frame)}**: {column.meaning}." for column in shown))
    replace_text(path, "\n\n".join(blocks) + "\n")


def make_folder(folder: Path) -> Path:
    """Makes a folder with its parents, where it is not there yet.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        check_disk(error, folder)
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; choose another one") from error
    return folder


def replace_text(path: Path, text: str) -> None:
    """Writes a text file in one step: a reader, or a crash, meets the old file or the new one and nothing between.

    Raises:
        InputError: the file cannot be written.
        StorageError: the disk is full.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", newline="")
        os.replace(draft, path)
    except OSError as error:
        check_disk(error, path)
        raise InputError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and can be written to"
        ) from error
    finally:
        _discard(draft)


def _discard(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        return  # The draft could not be made in the first place; the caller reports that.


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _markdown_table(frame: pd.DataFrame) -> str:
    columns = displayed(frame, "markdown")
    lines = [
        [_header(column, frame) for column in columns],
        [":--" if column.left else "--:" for column in columns],
        *([_cell(column, row) for column in columns] for row in records(frame)),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _header(column: Column, frame: pd.DataFrame) -> str:
    """A task may be called anything; other headers are ours."""
    return markdown(column.header) if column.source in utility_columns(list(frame.columns)) else column.header


def _cell(column: Column, row: Row) -> str:
    return markdown(column.cell(row)) if column.source in TEXT_COLUMNS else column.cell(row)
