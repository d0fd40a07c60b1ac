"""The store: every response, verdict and score in one SQLite file, under the digest of everything that decided it."""

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, astuple, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import InputError, StorageError, check_disk
from ...judges.base import Exchange
from ...results.records import Verdict
from ...results.text import storable
from .connection import connect, copy_of, damaged
from .digests import digest_of
from .health import Damage, check_quickly
from .records import JudgeRecord, Point, Sample
from .reviews import Reviews
from .schema import SCHEMA, VERSION, seal, upgrade

__all__ = ["JudgeRecord", "Point", "Sample", "Store"]

_PAGE = 500
"""Rows that are read at once."""


class Store:
    """An open store. Rows are only ever inserted, each with its checksum: one that exists already is never overwritten.

    Every method raises `StorageError` where the disk is full or fails, or the file is damaged.

    Args:
        path: the SQLite file; made where it does not exist, with its folder.
        session: marks the rows that this process adds.
        copied: works on a copy in a temporary folder, because the file's own cannot be written to.

    Raises:
        InputError: the file cannot be opened or written, is damaged, or was made by another version of the store.
        StorageError: the disk is full.
    """

    _ready = False

    def __init__(self, path: Path, session: str = "", copied: bool = False) -> None:
        self.path = path
        self.session = session
        self._open = ExitStack()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._prepare(self._open.enter_context(copy_of(path)) if copied else path)
        except Damage as error:
            raise InputError(damaged(path, str(error))) from error
        except StorageError as error:
            raise InputError(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            check_disk(error, path)
            raise InputError(
                f"The store {path} cannot be opened for writing: {error}. Choose another --output or --store."
            ) from error
        finally:
            if not self._ready:
                self._open.close()

    def _prepare(self, place: Path) -> None:
        """Opens the file, looks whether it is whole, and makes the tables that it lacks."""
        self._db = self._open.enter_context(closing(connect(place, self.path)))
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in range(VERSION + 1):
            raise InputError(
                f"The store {self.path} has version {version}, this safebasin reads {VERSION}. Choose another --store."
            )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        if version:
            check_quickly(self._db, place)
        with self._db:
            upgrade(self._db)
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version={VERSION}")
        self._settle()
        self._ready = True

    def _settle(self) -> None:
        """Moves what is in the log beside the file into the file: a copy of the file alone is then whole."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _check(self, sealed: int | None, *values: Any) -> None:
        """Compares a row with its checksum; one of version 1 has none."""
        if sealed is not None and sealed != seal(*values):
            raise StorageError(damaged(self.path, f"the row {str(values[0])[:24]} is not as it was written"))

    def close(self) -> None:
        """Closes the file."""
        self._open.close()

    @property
    def reviews(self) -> Reviews:
        """What people say of responses."""
        return Reviews(self._db)

    def answers(self, keys: Sequence[str]) -> dict[str, Any]:
        """The stored answers among `keys` (generated text, or a log-likelihood with its greedy flag)."""
        return {key: json.loads(answer) for key, answer in self._values("responses", "answer", keys)}

    def _values(self, table: str, column: str, keys: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(key, value) of the rows of a table that have one of the keys, each compared with its checksum."""
        for start in range(0, len(keys), _PAGE):
            part = keys[start : start + _PAGE]
            marks = ",".join("?" * len(part))
            rows = self._db.execute(f"SELECT seal, key, {column} FROM {table} WHERE key IN ({marks})", part)
            for sealed, key, value in rows:
                self._check(sealed, key, value)
                yield key, value

    def add_answers(self, kind: str, rows: Iterable[tuple[str, Mapping[str, Any], Any]]) -> None:
        """Adds (key, its parts, answer) in one transaction; an answer that another run has stored meanwhile stays."""
        now = time.time()
        written = [(key, json.dumps(parts), json.dumps(answer)) for key, parts, answer in rows]
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(key, kind, parts, answer, self.session, now, seal(key, answer)) for key, parts, answer in written],
            )

    def counts(self) -> dict[str, int]:
        """How many rows each session has added to the responses."""
        return dict(self._db.execute("SELECT session, COUNT(*) FROM responses GROUP BY session"))

    def has_cell(self, cell: str) -> bool:
        """Whether the cell is finished."""
        return self._db.execute("SELECT 1 FROM cells WHERE cell = ?", (cell,)).fetchone() is not None

    def add_cell(
        self,
        cell: str,
        parts: Mapping[str, Any],
        metric: float | None,
        samples: Sequence[Sample],
        n: int,
        points: Sequence[Point] = (),
        categories: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Records a finished cell: its headline metric, or the samples to be judged, of a sweep with their points.

        `categories` has the kind of request of each document that has one.
        """
        about = json.dumps(parts)
        value = None if metric is None or math.isnan(metric) else float(metric)  # SQLite knows no NaN
        with self._db:
            self._db.execute("DELETE FROM points WHERE cell = ?", (cell,))
            places = [(cell, *astuple(point)) for point in points]
            self._db.executemany("INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)", places)
            self._db.execute("DELETE FROM samples WHERE cell = ?", (cell,))
            rows = [(cell, sample.doc_id, sample.prompt, sample.response) for sample in samples]
            self._db.executemany("INSERT INTO samples VALUES (?, ?, ?, ?)", rows)
            self._db.execute("DELETE FROM prefixes WHERE cell = ?", (cell,))
            begun = [(cell, sample.doc_id, sample.prefix) for sample in samples if sample.prefix]
            self._db.executemany("INSERT INTO prefixes VALUES (?, ?, ?)", begun)
            self._db.execute("DELETE FROM categories WHERE cell = ?", (cell,))
            kinds = [(cell, doc_id, kind, seal(cell, doc_id, kind)) for doc_id, kind in categories.items()]
            self._db.executemany("INSERT INTO categories VALUES (?, ?, ?, ?)", kinds)
            self._db.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (cell, about, value, n, time.time(), seal(cell, about, value, n), _sealed(samples), _sealed(points)),
            )
        self._settle()

    def cells(self) -> list[str]:
        """The keys of all finished cells."""
        return [cell for (cell,) in self._db.execute("SELECT cell FROM cells")]

    def answers_by(self, weights: str) -> Iterator[tuple[str, Any]]:
        """(key, answer) of all answers by checkpoints of a base model, by the digest of its weights."""
        found = self._db.execute("SELECT key FROM responses WHERE json_extract(parts, '$.weights') = ?", (weights,))
        yield from self.answers([key for (key,) in found.fetchall()]).items()

    def cell_parts(self, cell: str) -> dict[str, Any]:
        """What the key of a cell was made from."""
        found = self._db.execute("SELECT parts FROM cells WHERE cell = ?", (cell,)).fetchone()
        return dict(json.loads(found[0])) if found else {}

    def cells_of(self, task: str) -> list[dict[str, Any]]:
        """What the keys of all finished cells of a task were made from."""
        found = self._db.execute("SELECT parts FROM cells WHERE json_extract(parts, '$.task') = ?", (task,))
        return [dict(json.loads(parts)) for (parts,) in found]

    def metric(self, cell: str) -> tuple[float | None, int]:
        """The headline metric of a cell (None where it is judged), and its number of documents."""
        metric, n = self._db.execute("SELECT metric, n FROM cells WHERE cell = ?", (cell,)).fetchone()
        return metric, n

    def samples(self, cell: str) -> list[Sample]:
        """The samples of a cell, by document."""
        return [*self.each_sample(cell)]

    def each_sample(self, cell: str) -> Iterator[Sample]:
        """The same, one after the other, so that they need not be in memory together.

        No statement stays open meanwhile: it would keep this process from writing where another one has written.
        """
        content, last = 0, -1
        while rows := self._db.execute(
            "SELECT doc_id, prompt, response, COALESCE(prefix, '') FROM samples "
            "LEFT JOIN prefixes USING (cell, doc_id) WHERE cell = ? AND doc_id > ? ORDER BY doc_id LIMIT ?",
            (cell, last, _PAGE),
        ).fetchall():
            for row in rows:
                content = seal(*row, after=content)
                yield Sample(*row)
            last = rows[-1][0]
        self._check_rows(cell, "content", content)

    def categories(self, cell: str) -> dict[int, str]:
        """The kind of request of each document of a cell that has one."""
        found = self._db.execute("SELECT doc_id, category, seal FROM categories WHERE cell = ?", (cell,)).fetchall()
        for doc_id, category, sealed in found:
            self._check(sealed, cell, doc_id, category)
        return {doc_id: category for doc_id, category, _ in found}

    def points(self, cell: str) -> list[Point]:
        """Where the samples of a cell lie in its sweep, by document; empty for a cell without one."""
        columns = ", ".join(field.name for field in fields(Point))
        found = self._db.execute(f"SELECT {columns} FROM points WHERE cell = ? ORDER BY doc_id", (cell,))
        points = [Point(*row) for row in found]
        self._check_rows(cell, "placed", _sealed(points))
        return points

    def _check_rows(self, cell: str, column: str, found: int) -> None:
        """Compares the rows of a cell with the checksum that they have in common."""
        row = self._db.execute(f"SELECT {column} FROM cells WHERE cell = ?", (cell,)).fetchone()
        if row and row[0] not in (None, found):
            raise StorageError(damaged(self.path, f"samples of the cell {cell[:12]} are not as they were written"))

    def assign(self, run: str, name: str, cell: str | None, status: str) -> None:
        """Notes which cell (by key) stands for `name` in a run, and how it ended."""
        with self._db:
            row = (run, name, cell, status)
            self._db.execute("INSERT OR REPLACE INTO assignments VALUES (?, ?, ?, ?, ?)", (*row, seal(*row)))

    def assignments(self, run: str) -> dict[str, tuple[str | None, str]]:
        """Name -> (cell key, status) of a run."""
        found = self._db.execute("SELECT name, cell, status FROM assignments WHERE run = ?", (run,))
        return {name: (cell, status) for name, cell, status in found}

    def set_judges(self, run: str, judges: Sequence[JudgeRecord]) -> None:
        """Notes the judges of a run, in the order in which they decide."""
        with self._db:
            self._db.execute("DELETE FROM judges WHERE run = ?", (run,))
            rows = [(run, i, j.name, json.dumps(sorted(j.decides)), j.identity) for i, j in enumerate(judges)]
            sealed = [(*row, seal(*row)) for row in rows]
            self._db.executemany("INSERT INTO judges VALUES (?, ?, ?, ?, ?, ?)", sealed)
        self._settle()

    def judges(self, run: str) -> list[JudgeRecord]:
        """The judges of a run, in order."""
        found = self._db.execute("SELECT name, decides, identity FROM judges WHERE run = ? ORDER BY position", (run,))
        return [JudgeRecord(name, frozenset(json.loads(decides)), identity) for name, decides, identity in found]

    def add_verdicts(self, identity: str, exchanges: Sequence[Exchange], verdicts: Sequence[Verdict]) -> None:
        """Adds a judge's verdicts; one that is there already stays."""
        now = time.time()
        rows = [
            (_verdict_key(identity, exchange), json.dumps(asdict(verdict)))
            for exchange, verdict in zip(exchanges, verdicts, strict=True)
        ]
        with self._db:
            sealed = [(key, identity, verdict, now, seal(key, verdict)) for key, verdict in rows]
            self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?, ?)", sealed)

    def verdicts(self, identity: str, exchanges: Sequence[Exchange]) -> dict[Exchange, Verdict]:
        """The stored verdicts of one judge among the exchanges."""
        keys = {exchange: _verdict_key(identity, exchange) for exchange in exchanges}
        found = dict(self._values("verdicts", "verdict", [*keys.values()]))
        return {exchange: _verdict(found[key]) for exchange, key in keys.items() if key in found}


def _sealed(rows: Sequence[Sample] | Sequence[Point]) -> int:
    """The checksum of the samples or points of a cell, by document."""
    content = 0
    ordered: list[Sample | Point] = sorted(rows, key=lambda row: row.doc_id)
    for row in ordered:
        content = seal(*astuple(row), after=content)
    return content


def _verdict(text: str) -> Verdict:
    fields = json.loads(text)
    categories, raw = tuple(map(storable, fields["categories"])), storable(fields.get("raw", ""))
    return Verdict(**{**fields, "categories": categories, "raw": raw})


def _verdict_key(identity: str, exchange: Exchange) -> str:
    return digest_of({"judge": identity, "prompt": exchange.prompt, "response": exchange.response})
