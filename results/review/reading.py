"""Labels that reviewers hand back: all that is wrong with the files is told at once, each with its file and line."""

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError, listed
from ...registry import suggest
from ..html.embed import visible
from .sheet import LABELS, Label, Said

__all__ = ["Labels", "read_labels"]

NEEDED = ("sheet", "item", "label")
LARGEST = 200_000_000
"""Bytes of one file."""
SHOWN = 100
"""Faults listed in one message."""
WIDTH = 40
"""Characters shown of what stands in a row."""
NOTE = 2_000
"""Characters kept of a comment."""
_INERT = re.compile(r"^'(?=\s*[=+\-@＝＋－＠])")
"""The apostrophe that the page puts before what a spreadsheet would take for a formula."""


@dataclass(frozen=True)
class Labels:
    """What one reviewer says of one sheet."""

    sheet: str
    said: Mapping[str, Said]
    """By item, in the order of the files."""


class _Row(NamedTuple):
    """One row of a file as it stands there."""

    file: Path
    line: int
    sheet: str
    item: str
    label: str
    note: str


class _Fault(NamedTuple):
    """What is wrong, and where: line 0 is the file as a whole, no file all of them."""

    file: Path | None
    line: int
    what: str

    def __str__(self) -> str:
        place = [*([visible(str(self.file))] if self.file else []), *([f"line {self.line}"] if self.line else [])]
        return ": ".join([*([", ".join(place)] if place else []), self.what])


def read_labels(
    paths: Sequence[Path], sheets: Mapping[str, Collection[str]], foreign: Collection[str] = (), partial: bool = False
) -> Labels:
    """Reads the labels of one sheet from files that the page has made, or from its CSV filled in.

    Args:
        paths: of the files; all of one reviewer.
        sheets: sheets of the run -> their items.
        foreign: sheets that are known to be of other runs.
        partial: whether items may be left without a label.

    Raises:
        InputError: a file cannot be read; a sheet is unknown or of another run; an item is unknown, or labelled twice
            or not at all; a label is none of `LABELS`. All of it at once, and then nothing counts.
    """
    faults: list[_Fault] = []
    rows = [row for path in paths for row in _rows(path, faults)]
    whole = not faults
    sheet = next((row.sheet for row in rows if row.sheet in sheets), None)
    faults += _wrong_sheets(rows, sheets, foreign, sheet)
    rows = [row for row in rows if row.sheet == sheet]
    said: dict[str, Said] = {}
    if sheet is not None:
        said = dict(_said(rows, sheets[sheet], faults))
        faults += [] if partial else _missing(rows, sheets[sheet], whole)
    elif not faults:
        faults.append(_Fault(None, 0, "there is no row in any file. Give what the page downloads, or its CSV"))
    if faults:
        order = [*paths, None]
        lines = [str(each) for each in sorted(faults, key=lambda fault: (order.index(fault.file), fault.line))]
        count = f"{len(lines)} fault{'s' if len(lines) > 1 else ''}"
        raise InputError(f"{count} in the labels, so that none of them is stored:\n{listed(lines, SHOWN)}")
    return Labels(str(sheet), said)


def _wrong_sheets(
    rows: Sequence[_Row], sheets: Mapping[str, Collection[str]], foreign: Collection[str], sheet: str | None
) -> Iterator[_Fault]:
    """One for each file and sheet that is not the one to be imported."""
    wrong: dict[tuple[Path, str], list[int]] = {}
    for row in rows:
        if row.sheet != sheet:
            wrong.setdefault((row.file, row.sheet), []).append(row.line)
    for (file, name), lines in wrong.items():
        shown, many = visible(name, WIDTH), f" ({len(lines)} rows)" if len(lines) > 1 else ""
        if name in foreign:
            what = f"the sheet {shown} was drawn from another run{many}; give the folder of that run"
        elif name in sheets:
            what = f"the sheet {shown} is not {sheet}, as in rows before{many}; import one sheet at a time"
        else:
            what = f"this run has no sheet '{shown}'{many}. {suggest(shown, sheets)}"
        yield _Fault(file, lines[0], what)


def _said(rows: Sequence[_Row], items: Collection[str], faults: list[_Fault]) -> Iterator[tuple[str, Said]]:
    """What is said of each item; what is wrong is added to `faults`."""
    first: dict[str, _Row] = {}
    for row in rows:
        item, label = visible(row.item, WIDTH), visible(row.label, WIDTH)
        if row.item not in items:
            faults.append(_Fault(row.file, row.line, f"there is no item '{item}' on the sheet {row.sheet}"))
        elif row.label and row.item in first:
            before = f"{visible(str(first[row.item].file))}, line {first[row.item].line}"
            faults.append(_Fault(row.file, row.line, f"{item} is labelled already, in {before}; keep one of the two"))
        elif row.label and row.label not in {*LABELS}:
            faults.append(_Fault(row.file, row.line, f"'{label}' is no label. {suggest(label, LABELS)}"))
        elif row.label:
            yield row.item, Said(Label(row.label), row.note)
        if row.label:
            first.setdefault(row.item, row)


def _missing(rows: Sequence[_Row], items: Collection[str], whole: bool) -> Iterator[_Fault]:
    """Items without a label; those that are in no row only where all rows could be read."""
    labelled, there = {row.item for row in rows if row.label}, {row.item for row in rows}
    for row in rows:
        if row.item in items and row.item not in labelled:
            yield _Fault(row.file, row.line, f"{row.item} has no label; {_OTHERWISE}")
    if whole and (absent := [item for item in items if item not in there]):
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        what = f"{len(absent)} of {len(items)} items are in no file ({', '.join(absent[:3])}{more}); {_OTHERWISE}"
        yield _Fault(None, 0, what)


_OTHERWISE = "label it (`unclear` is a label), or give --partial"


def _rows(path: Path, faults: list[_Fault]) -> Iterator[_Row]:
    """The rows of one file; why it, or what of it, cannot be read is added to `faults`."""
    try:
        records = _records(_text(path))
        _, header = next(records, (1, []))
        names = [cell.strip().casefold() for cell in header]
        if lacking := [name for name in NEEDED if names.count(name) != 1]:
            raise _Unreadable(1, f"it needs the columns {', '.join(NEEDED)}, each once; not so: {', '.join(lacking)}")
        for line, cells in records:
            if any(cells[len(names) :]):
                what = f"{len(cells)} cells where the header has {len(names)}; put quotes around what holds a separator"
                faults.append(_Fault(path, line, what))
                continue
            row = dict.fromkeys((*NEEDED, "note"), "") | dict(zip(names, map(str.strip, cells), strict=False))
            note = _INERT.sub("", row["note"])[:NOTE]
            yield _Row(path, line, row["sheet"], row["item"], row["label"].casefold(), note)
    except _Unreadable as error:
        faults.append(_Fault(path, *error.args))


class _Unreadable(Exception):
    """(line, why) of a file, or the rest of one, that cannot be read."""


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise _Unreadable(0, f"it is larger than {LARGEST:,} bytes, which no file of labels is")
        content = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _Unreadable(0, f"it cannot be read ({getattr(error, 'strerror', None) or error})") from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise _Unreadable(line, "it is no UTF-8; save it as CSV in UTF-8") from error


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which it begins, cells) of each row that is not blank; commas, semicolons or tabs between cells."""
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Unreadable(line, f"it is no CSV from here on ({error})") from error
