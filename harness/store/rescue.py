"""What is saved of a damaged store, and copies of a sound one."""

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import InputError, check_disk
from .connection import check_there, copy_of
from .health import bad_cells, faults
from .schema import SCHEMA, SEALED, VERSION, seal

__all__ = ["Recovered", "back_up", "found_faults", "recover"]

_LOGS = ("-wal", "-shm")
PAGE = 4096
"""Bytes of a page of SQLite, unless it is told otherwise."""
_GIVE_UP = 2000
"""Rows after another that cannot be read, past which nothing more of a table is looked for."""
Recovered = Mapping[str, int]
"""Table -> rows saved."""


def found_faults(path: Path) -> list[str]:
    """Everything that is wrong with a store; the file is not written to.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    with copy_of(path) as copy:
        try:
            with closing(sqlite3.connect(copy)) as database:
                return list(faults(database))
        except sqlite3.Error as error:
            return [str(error)]


def back_up(path: Path, target: Path) -> None:
    """Copies a store, also while a run writes to it; the copy is whole and a single file.

    Raises:
        InputError: there is no store, or it or the copy is damaged or cannot be written.
        StorageError: the disk is full.
    """
    check_there(path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=60)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            wrong = list(faults(copy))
        if wrong:
            raise InputError(
                f"{path} is damaged ({wrong[0]}), so it is not backed up. Run `safebasin store recover {path.parent}`."
            )
        os.replace(draft, target)
    except (OSError, sqlite3.Error) as error:
        check_disk(error, target)
        raise InputError(f"{path} cannot be copied to {target}: {error}.") from error
    finally:
        draft.unlink(missing_ok=True)


def recover(path: Path) -> tuple[Recovered, Path]:
    """Puts a store of every whole row in the place of a damaged one, which is kept beside it.

    A row is whole if it can be read and its checksum is right; a cell, if all of its samples are there. What is missing
    then is made again by the next run, and what is there is taken.

    Returns:
        The rows saved of each table, and where the damaged file is now.

    Raises:
        InputError: there is no store.
        StorageError: the disk is full.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with copy_of(path) as copy, closing(sqlite3.connect(draft)) as fresh:
            with fresh:
                fresh.executescript(SCHEMA)
                fresh.execute(f"PRAGMA user_version={VERSION}")
            saved = _saved(copy, fresh)
    except (OSError, sqlite3.Error) as error:
        draft.unlink(missing_ok=True)
        check_disk(error, path)
        raise InputError(f"{path} cannot be recovered: {error}.") from error
    kept = next(path.with_name(f"store.damaged-{i}.sqlite") for i in range(1, 10**6) if not _taken(path, i))
    for end in ("", *_LOGS):
        if path.with_name(path.name + end).exists():
            os.replace(path.with_name(path.name + end), kept.with_name(kept.name + end))
    os.replace(draft, path)
    return saved, kept


def _taken(path: Path, number: int) -> bool:
    return path.with_name(f"store.damaged-{number}.sqlite").exists()


def _saved(copy: Path, fresh: sqlite3.Connection) -> Recovered:
    """Fills a new store with the whole rows of a damaged one."""
    _mend_header(copy)
    with closing(sqlite3.connect(copy)) as old, fresh:
        for table in _tables(fresh):
            columns = [row[1] for row in fresh.execute(f"PRAGMA table_info({table})").fetchall()]
            try:
                held = [row[1] for row in old.execute(f"PRAGMA table_info({table})").fetchall()]
            except sqlite3.DatabaseError:
                held = []
            columns = [name for name in columns if name in held]
            rows = (row for row in _readable(old, table, columns) if columns and _whole(table, row))
            marks = ", ".join(f":{name}" for name in columns)
            insert = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"
            if columns:
                fresh.executemany(insert, rows)
        _drop_partial(fresh)
        return {table: fresh.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in _tables(fresh)}


def _tables(database: sqlite3.Connection) -> list[str]:
    return [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]


def _readable(old: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows that can be read, found by halving the ranges that cannot."""
    names = ", ".join(columns)
    waiting, missed = [(1, _last(old, table))], 0
    while waiting and missed < _GIVE_UP:
        first, last = waiting.pop()
        done = first - 1
        try:
            for number, *values in old.execute(
                f"SELECT rowid, {names} FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid", (first, last)
            ):
                yield dict(zip(columns, values, strict=True))
                done, missed = number, 0
        except sqlite3.DatabaseError:
            first = done + 1
            if first >= last:
                missed += 1
                continue
            middle = (first + last) // 2
            waiting += [(middle + 1, last), (first, middle)]


def _last(old: sqlite3.Connection, table: str) -> int:
    """The last row's number, or one that it cannot exceed; 0 where not even the first can be read."""
    try:
        return int(old.execute(f"SELECT MAX(rowid) FROM {table}").fetchone()[0] or 0)
    except sqlite3.DatabaseError:
        pass
    try:
        return 2**32 if old.execute(f"SELECT rowid FROM {table} ORDER BY rowid LIMIT 1").fetchone() else 0
    except sqlite3.DatabaseError:
        return 0


def _whole(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is as it was written, as far as can be told."""
    if row.get("seal") is not None and row["seal"] != seal(*(row[name] for name in SEALED[table])):
        return False
    try:
        for name in ("parts", "answer", "verdict", "decides", "about"):
            json.loads(row.get(name, "0"))
    except (TypeError, ValueError):
        return False
    return True


def _drop_partial(fresh: sqlite3.Connection) -> None:
    """Takes out cells that lack samples, samples that lack their cell, and what refers to either."""
    fresh.executemany("DELETE FROM cells WHERE cell = ?", [(cell,) for cell, _ in bad_cells(fresh)])
    for table in ("samples", "prefixes", "categories", "points", "assignments"):
        fresh.execute(f"DELETE FROM {table} WHERE cell IS NOT NULL AND cell NOT IN (SELECT cell FROM cells)")


def _mend_header(copy: Path) -> None:
    """Puts a new store's first page there where it cannot be read: the tables of all begin at the same pages."""
    try:
        with closing(sqlite3.connect(copy)) as old:
            if len(_tables(old)) > 2:
                return
    except sqlite3.DatabaseError:
        pass  # that is what is mended here
    new = copy.with_name("new.sqlite")
    with closing(sqlite3.connect(new)) as database, database:
        database.executescript(SCHEMA)
        database.execute(f"PRAGMA user_version={VERSION}")
    page = bytearray(new.read_bytes()[:PAGE])
    page[28:32] = (copy.stat().st_size // PAGE).to_bytes(4, "big")
    with copy.open("r+b") as file:
        file.write(page)
