"""Whether a store's file is whole: what is cheap when it is opened, and everything when asked for."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from .schema import SEALED, seal

__all__ = ["Damage", "bad_cells", "check_quickly", "faults"]

SMALL = 256 * 2**20
"""Bytes up to which a file is compared with its indices when it is opened, at some 300 MB/s."""
_FEW = ("assignments", "judges", "cells", "sheets", "labels")
"""Tables of few rows, which decide what a report shows: all of their checksums are compared at opening. Responses,
samples and verdicts are compared as they are read."""


class Damage(Exception):
    """What is wrong with a file."""


def check_quickly(database: sqlite3.Connection, path: Path) -> None:
    """Looks at the pages of a file, at the rows that decide what is shown, and whether cells have all their samples.

    Raises:
        Damage: the first thing that is wrong.
    """
    pragma = "integrity_check" if path.stat().st_size <= SMALL else "quick_check"
    for fault in (*_pages(database, pragma), *_unsealed(database, _FEW), *_incomplete(database)):
        raise Damage(fault)


def faults(database: sqlite3.Connection) -> Iterator[str]:
    """Everything that is wrong with a file, one sentence each."""
    yield from _pages(database, "integrity_check")
    yield from _unsealed(database, SEALED)
    yield from (
        f"the {name} of the cell {cell[:12]} are not as they were written" for cell, name in bad_cells(database)
    )


def _pages(database: sqlite3.Connection, pragma: str) -> Iterator[str]:
    for (line,) in database.execute(f"PRAGMA {pragma}(20)").fetchall():
        if line != "ok":
            yield " ".join(str(line).split())


def _unsealed(database: sqlite3.Connection, tables: "tuple[str, ...] | dict[str, tuple[str, ...]]") -> Iterator[str]:
    for table in tables:
        if not _has(database, table, "seal"):
            continue
        columns = ", ".join(SEALED[table])
        for sealed, *values in database.execute(f"SELECT seal, {columns} FROM {table} WHERE seal IS NOT NULL"):
            if sealed != seal(*values):
                yield f"the row {str(values[0])[:24]} of {table} is not as it was written"


def _has(database: sqlite3.Connection, table: str, column: str) -> bool:
    return any(row[1] == column for row in database.execute(f"PRAGMA table_info({table})").fetchall())


def _incomplete(database: sqlite3.Connection) -> Iterator[str]:
    """Cells with fewer or more samples than documents."""
    for cell, n, held in _miscounted(database):
        yield f"the cell {cell[:12]} has {held} of its {n} samples"


def _miscounted(database: sqlite3.Connection) -> list[tuple[str, int, int]]:
    """Cells with samples, those that they should have (one for each document, in a sweep for each point), and have."""
    if not _has(database, "cells", "n") or not _has(database, "samples", "cell"):
        return []
    swept = "SELECT cell, COUNT(*) AS swept FROM points GROUP BY cell"
    if not _has(database, "points", "cell"):
        swept = "SELECT NULL AS cell, NULL AS swept"
    return database.execute(
        "SELECT cells.cell, COALESCE(swept, n), held FROM cells "
        "JOIN (SELECT cell, COUNT(*) AS held FROM samples GROUP BY cell) AS s ON s.cell = cells.cell "
        f"LEFT JOIN ({swept}) AS p ON p.cell = cells.cell WHERE held != COALESCE(swept, n)"
    ).fetchall()


def bad_cells(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """The cells of a store whose samples or points are not all there, or not as they were written, and which."""
    yield from ((cell, "samples") for cell, *_ in _miscounted(database))
    if not _has(database, "cells", "content"):
        return
    for cell, content, placed in database.execute("SELECT cell, content, placed FROM cells").fetchall():
        samples = database.execute(
            "SELECT doc_id, prompt, response, COALESCE(prefix, '') FROM samples "
            "LEFT JOIN prefixes USING (cell, doc_id) WHERE cell = ? ORDER BY doc_id",
            (cell,),
        )
        points = database.execute(
            "SELECT doc_id, prompt, direction, alpha, logprob, tokens FROM points WHERE cell = ? ORDER BY doc_id",
            (cell,),
        )
        for name, rows, sealed in (("samples", samples, content), ("points", points, placed)):
            found = 0
            for row in rows:
                found = seal(*row, after=found)
            if sealed not in (None, found):
                yield cell, name
