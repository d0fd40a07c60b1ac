"""Files of rows, whatever their format and encoding: records with the line that each stands in."""

import codecs
import csv
import gzip
import io
import json
import math
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import InputError

__all__ = ["FORMATS", "Record", "Table", "format_of", "parted", "read_table", "table_of"]

FORMATS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Endings, each also with `.gz`, in any case."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""How files begin that say their encoding; the mark of UTF-16 begins that of UTF-32."""
_EXCERPT = 60
_PART = re.compile(r"(?P<path>.+)\[(?P<first>\d*):(?P<end>\d*)\]")


@dataclass(frozen=True)
class Record:
    """One row as it stands in the file."""

    place: str
    """`line 7`, or `row 7` where there are no lines."""
    cells: Mapping[str, Any]
    """By column; what is null or NaN is absent."""


@dataclass(frozen=True)
class Table:
    """What a file holds."""

    columns: tuple[str, ...]
    """Of all records, as they are written."""
    records: tuple[Record, ...]
    faults: tuple[str, ...] = ()
    """What cannot be read, with its place."""


def parted(source: str) -> tuple[Path, slice | None]:
    """The path of a file of rows, and the part of its rows that is meant by `FILE[first:end]`, counted from 0."""
    found = _PART.fullmatch(source)
    if found is None:
        return Path(source).expanduser(), None
    first, end = (int(number) if number else None for number in (found["first"], found["end"]))
    return Path(found["path"]).expanduser(), slice(first, end)


def format_of(name: str) -> str | None:
    """Which of `FORMATS` a file's name ends in, perhaps before the part that is meant; None for any other."""
    found = _PART.fullmatch(name)
    plain = (found["path"] if found else name).lower().removesuffix(".gz")
    return next((ending for ending in FORMATS if plain.endswith(ending)), None)


def read_table(source: str) -> Table:
    """Reads a file of rows.

    Args:
        source: its path as the user gave it, as messages say it; `FILE[first:end]` is a part of its rows.

    Raises:
        InputError: no such file, none of the formats, nothing in it, or it cannot be read as a whole.
    """
    path, part = parted(source)
    ending = format_of(path.name)
    if ending is None:
        raise InputError(f"'{source}' is no file of rows: its name must end in one of {', '.join(FORMATS)} (or .gz).")
    content = _content(path, source)
    if content.startswith(b"version https://git-lfs"):
        raise InputError(f"'{source}' is a pointer of Git LFS, not the file itself. Run `git lfs pull`.")
    if ending == ".parquet":
        table = _parquet(content, source)
    else:
        text = _text(content, source)
        table = _csv(text, source, ending) if ending in (".csv", ".tsv") else _json(text, source)
    if not table.records and not table.faults:
        raise InputError(f"'{source}' holds no rows.")
    if part is None or table.faults:
        return table
    if not table.records[part]:
        raise InputError(f"'{source}' holds no rows: the file has {len(table.records)}.")
    return replace(table, records=table.records[part])


def table_of(rows: Iterable[Any], places: Iterable[str], source: str, columns: Sequence[str] = ()) -> Table:
    """Records of rows in memory, each with its place; a row that is no mapping is a fault."""
    records, faults = [], []
    for row, place in zip(rows, places, strict=False):
        if isinstance(row, Mapping):
            records.append(Record(place, {str(name): cell for name, cell in row.items() if not _absent(cell)}))
        else:
            faults.append(f"{place}: {_excerpt(repr(row))} is no row: it has no columns.")
    found = columns or tuple(dict.fromkeys(name for record in records for name in record.cells))
    _check_header(found, source)
    return Table(tuple(found), tuple(records), tuple(faults))


def _absent(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _content(path: Path, source: str) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.name.lower().endswith(".gz") else content
    except FileNotFoundError as error:
        raise InputError(f"There is no file '{source}'.") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"'{source}' cannot be read: {reason}.") from error


def _text(content: bytes, source: str) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is None:  # text begins with a character of ASCII, whose other byte is 0 in UTF-16
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le" if content[1:2] == b"\0" else "utf-8"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(
            f"'{source}', line {line}: byte 0x{content[error.start]:02x} is no {encoding.upper()}. Save it as UTF-8."
        ) from error


def _json(text: str, source: str) -> Table:
    """A list of objects, or an object in each line: either is found in files of both names."""
    if text.lstrip().startswith("["):
        try:
            rows = _parsed(text)
        except ValueError as error:
            line = text.split("\n")[getattr(error, "lineno", 1) - 1]
            where = f"line {getattr(error, 'lineno', 1)}"
            raise InputError(f"'{source}', {where}: {_reason(error)}: {_excerpt(line)}") from error
        return table_of(rows, (f"row {number}" for number in range(1, len(rows) + 1)), source)
    rows, places, faults = [], [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(_parsed(line))
                places.append(f"line {number}")
            except ValueError as error:
                faults.append(f"line {number}: {_reason(error)}: {_excerpt(line)}")
    if faults and not rows and _is_json(text):
        raise InputError(f"'{source}' holds one object. It must hold a list of rows, or a row in each line.")
    table = table_of(rows, places, source)
    return Table(table.columns, table.records, (*faults, *table.faults))


def _parsed(text: str) -> Any:
    try:
        found = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\ud" in text.lower():
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("holds half of a character (a lone surrogate)") from error
    return found


def _is_json(text: str) -> bool:
    try:
        _parsed(text)
    except ValueError:
        return False
    return True


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if again := _twice([name for name, _ in pairs]):
        raise ValueError(f"'{again}' stands twice in one row")
    return dict(pairs)


def _reason(error: ValueError) -> str:
    return f"not JSON ({error.msg}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def _twice(names: Sequence[str]) -> str:
    """The first name that is there before, in whatever case; empty where there is none."""
    plain = [name.strip().casefold() for name in names]
    return next((name for i, name in enumerate(names) if plain[i] and plain[i] in plain[:i]), "")


def _check_header(names: Sequence[str], source: str) -> None:
    if again := _twice(names):
        raise InputError(f"'{source}' has two columns '{again}' (case does not count). Rename or remove one.")


def _csv(text: str, source: str, ending: str) -> Table:
    """Cells between commas; between semicolons or tabs where the first line has more of them."""
    first = text.lstrip().split("\n", 1)[0]
    delimiter = "\t" if ending == ".tsv" else max(",;\t", key=first.count)
    lines = text.split("\n")
    header: list[str] = []
    records, faults = [], []
    for number, cells in _csv_rows(text, delimiter):
        if isinstance(cells, str):
            faults.append(f"line {number}: {cells}: {_excerpt(lines[number - 1])}")
        elif not header:
            header = [name.strip() for name in cells]
            _check_header(header, source)
        elif len(cells) != len(header):
            faults.append(
                f"line {number}: {len(cells)} cells for {len(header)} columns (text with a '{delimiter}' needs "
                f"quotes): {_excerpt(lines[number - 1])}"
            )
        else:
            records.append(
                Record(f"line {number}", {name: cell for name, cell in zip(header, cells, strict=True) if name})
            )
    return Table(tuple(filter(None, header)), tuple(records), tuple(faults))


def _csv_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str] | str]]:
    """The line in which each row begins, and its cells, or what is wrong with it; empty lines are left out."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            try:
                if cells := next(reader):
                    yield line, cells
            except csv.Error as error:
                yield line, f"not CSV ({error})"
            except StopIteration:
                return
    finally:
        csv.field_size_limit(limit)


def _parquet(content: bytes, source: str) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"'{source}' cannot be read as Parquet: {error}") from error
    _check_header(table.column_names, source)
    rows = table.to_pylist()
    return table_of(rows, (f"row {number}" for number in range(1, len(rows) + 1)), source, table.column_names)
