"""SQLite whose errors say what happened to the file and what to do, wherever in a statement they come up."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from ...errors import InputError, StorageError, check_disk

__all__ = ["Connection", "check_there", "connect", "copy_of", "damaged", "explained"]


def damaged(path: Path, what: str) -> str:
    """What is said of a damaged store: what is wrong, and the way out."""
    return (
        f"The store {path} is damaged: {what}. `safebasin store recover {path.parent}` saves every row that is whole "
        "(and keeps the damaged file); the next `safebasin run` makes the rest again. Or put a backup in its place."
    )


def explained(path: Path, error: sqlite3.Error) -> str:
    """One of SQLite's errors as a message."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return f"The disk is full: the store {path} cannot grow. What is stored is kept; free space, then run again."
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "decode to UTF-8" in str(error):
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"The store {path} is busy: another process has been writing to it for a minute. Run again later."
    if code == sqlite3.SQLITE_IOERR:
        return (
            f"The store {path} cannot be read or written ({error}): the disk is full or fails. What is stored is kept; "
            "see to the disk, then run again."
        )
    return f"The store {path} cannot be used: {error}. Choose another --output or --store, or mend its permissions."


class _Cursor(sqlite3.Cursor):
    """A cursor whose errors are `StorageError`."""

    def execute(self, sql: str, parameters: Any = ()) -> Self:
        try:
            return super().execute(sql, parameters)
        except sqlite3.DatabaseError as error:
            raise self._told(error) from error

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Self:
        try:
            return super().executemany(sql, parameters)
        except sqlite3.DatabaseError as error:
            raise self._told(error) from error

    def executescript(self, sql: str) -> Self:
        try:
            super().executescript(sql)
        except sqlite3.DatabaseError as error:
            raise self._told(error) from error
        return self

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except sqlite3.DatabaseError as error:
            raise self._told(error) from error

    def fetchone(self) -> Any:
        return next(self, None)

    def fetchall(self) -> list[Any]:
        return list(self)

    def _told(self, error: sqlite3.DatabaseError) -> Exception:
        connection = self.connection
        return connection.told(error) if isinstance(connection, Connection) else error


class Connection(sqlite3.Connection):
    """A connection whose errors are `StorageError`; a broken constraint or a wrong statement stays what it is."""

    path: Path

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        """As of every connection."""
        return self.cursor(_Cursor).execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Any]) -> Any:
        """As of every connection."""
        return self.cursor(_Cursor).executemany(sql, parameters)

    def executescript(self, sql: str) -> Any:
        """As of every connection."""
        return self.cursor(_Cursor).executescript(sql)

    def __exit__(self, *raised: Any) -> Any:
        try:
            return super().__exit__(*raised)
        except sqlite3.DatabaseError as error:
            raise self.told(error) from error

    def told(self, error: sqlite3.DatabaseError) -> Exception:
        """What is raised in place of one of SQLite's errors."""
        ours = isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError)
        return error if ours else StorageError(explained(self.path, error))


def connect(path: Path, named: Path) -> Connection:
    """Opens an SQLite file, made where it does not exist; messages name it as `named`.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    connection = sqlite3.connect(path, timeout=60, factory=Connection)
    connection.path = named
    return connection


def check_there(path: Path) -> None:
    """Whether there is a store.

    Raises:
        InputError: there is none.
    """
    if not path.is_file():
        raise InputError(f"There is no store {path}. Give the folder of a run, or of a store shared between runs.")


@contextmanager
def copy_of(path: Path) -> Iterator[Path]:
    """A copy of a store's files in a temporary folder, for as long as the block lasts.

    Raises:
        InputError: there is no store, or it cannot be read.
        StorageError: the disk is full.
    """
    check_there(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "store.sqlite"
        try:
            shutil.copyfile(path, copy)
            log = path.with_name(f"{path.name}-wal")
            if log.exists():
                shutil.copyfile(log, copy.with_name(f"{copy.name}-wal"))
        except OSError as error:
            check_disk(error, copy)
            raise InputError(f"{path} cannot be read: {error.strerror}.") from error
        yield copy
