"""The store: every response, verdict and score in one SQLite file, under the digest of everything that decided it."""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...judges.base import Exchange
from ...results.records import Verdict
from ...results.text import storable
from .digests import digest_of
from .records import JudgeRecord, Point, Sample
from .reviews import Reviews

__all__ = ["JudgeRecord", "Point", "Sample", "Store"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
  key TEXT PRIMARY KEY, kind TEXT NOT NULL, parts TEXT NOT NULL, answer TEXT NOT NULL, session TEXT NOT NULL,
  created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS verdicts (
  key TEXT PRIMARY KEY, judge TEXT NOT NULL, verdict TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
  cell TEXT PRIMARY KEY, parts TEXT NOT NULL, metric REAL, n INTEGER NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prompt TEXT NOT NULL, response TEXT NOT NULL,
  PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS prefixes (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prefix TEXT NOT NULL, PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS points (
  cell TEXT NOT NULL, doc_id INTEGER NOT NULL, prompt INTEGER NOT NULL, direction INTEGER NOT NULL, alpha REAL NOT NULL,
  logprob REAL NOT NULL, tokens INTEGER NOT NULL, PRIMARY KEY (cell, doc_id));
CREATE TABLE IF NOT EXISTS assignments (
  run TEXT NOT NULL, name TEXT NOT NULL, cell TEXT, status TEXT NOT NULL, PRIMARY KEY (run, name));
CREATE TABLE IF NOT EXISTS judges (
  run TEXT NOT NULL, position INTEGER NOT NULL, name TEXT NOT NULL, decides TEXT NOT NULL, identity TEXT NOT NULL,
  PRIMARY KEY (run, position));
"""
VERSION = 1


class Store:
    """An open store. Rows are only ever inserted: a response that exists already is an error, never overwritten.

    Args:
        path: the SQLite file; made where it does not exist, with its folder.
        session: marks the rows that this process adds.

    Raises:
        InputError: the file cannot be opened or written, or was made by another version of the store.
    """

    def __init__(self, path: Path, session: str = "") -> None:
        self.path = path
        self.session = session
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise InputError(
                    f"The store {path} has version {version}, this safebasin reads {VERSION}. Choose another --store."
                )
            with self._db:
                self._db.executescript(SCHEMA)
                self._db.execute(f"PRAGMA user_version={VERSION}")
        except (OSError, sqlite3.Error) as error:
            raise InputError(
                f"The store {path} cannot be opened for writing: {error}. Choose another --output or --store."
            ) from error

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    @property
    def reviews(self) -> Reviews:
        """What people say of responses."""
        return Reviews(self._db)

    def answers(self, keys: Sequence[str]) -> dict[str, Any]:
        """The stored answers among `keys` (generated text, or a log-likelihood with its greedy flag)."""
        found: dict[str, Any] = {}
        for start in range(0, len(keys), 500):
            part = keys[start : start + 500]
            marks = ",".join("?" * len(part))
            for key, answer in self._db.execute(f"SELECT key, answer FROM responses WHERE key IN ({marks})", part):
                found[key] = json.loads(answer)
        return found

    def add_answers(self, kind: str, rows: Iterable[tuple[str, Mapping[str, Any], Any]]) -> None:
        """Adds (key, its parts, answer) in one transaction. A key that is there already raises IntegrityError."""
        now = time.time()
        with self._db:
            self._db.executemany(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?)",
                [(key, kind, json.dumps(parts), json.dumps(answer), self.session, now) for key, parts, answer in rows],
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
    ) -> None:
        """Records a finished cell: its headline metric, or the samples to be judged, of a sweep with their points."""
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
            self._db.execute(
                "INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?)", (cell, json.dumps(parts), metric, n, time.time())
            )

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
        """The same, one after the other, so that they need not be in memory together."""
        found = self._db.execute(
            "SELECT doc_id, prompt, response, COALESCE(prefix, '') FROM samples "
            "LEFT JOIN prefixes USING (cell, doc_id) WHERE cell = ? ORDER BY doc_id",
            (cell,),
        )
        return (Sample(*row) for row in found)

    def points(self, cell: str) -> list[Point]:
        """Where the samples of a cell lie in its sweep, by document; empty for a cell without one."""
        columns = ", ".join(field.name for field in fields(Point))
        found = self._db.execute(f"SELECT {columns} FROM points WHERE cell = ? ORDER BY doc_id", (cell,))
        return [Point(*row) for row in found]

    def assign(self, run: str, name: str, cell: str | None, status: str) -> None:
        """Notes which cell (by key) stands for `name` in a run, and how it ended."""
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO assignments VALUES (?, ?, ?, ?)", (run, name, cell, status))

    def assignments(self, run: str) -> dict[str, tuple[str | None, str]]:
        """Name -> (cell key, status) of a run."""
        found = self._db.execute("SELECT name, cell, status FROM assignments WHERE run = ?", (run,))
        return {name: (cell, status) for name, cell, status in found}

    def set_judges(self, run: str, judges: Sequence[JudgeRecord]) -> None:
        """Notes the judges of a run, in the order in which they decide."""
        with self._db:
            self._db.execute("DELETE FROM judges WHERE run = ?", (run,))
            rows = [(run, i, j.name, json.dumps(sorted(j.decides)), j.identity) for i, j in enumerate(judges)]
            self._db.executemany("INSERT INTO judges VALUES (?, ?, ?, ?, ?)", rows)

    def judges(self, run: str) -> list[JudgeRecord]:
        """The judges of a run, in order."""
        found = self._db.execute("SELECT name, decides, identity FROM judges WHERE run = ? ORDER BY position", (run,))
        return [JudgeRecord(name, frozenset(json.loads(decides)), identity) for name, decides, identity in found]

    def add_verdicts(self, identity: str, exchanges: Sequence[Exchange], verdicts: Sequence[Verdict]) -> None:
        """Adds a judge's verdicts; one that is there already stays."""
        now = time.time()
        rows = [
            (_verdict_key(identity, exchange), identity, json.dumps(asdict(verdict)), now)
            for exchange, verdict in zip(exchanges, verdicts, strict=True)
        ]
        with self._db:
            self._db.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?, ?, ?)", rows)

    def verdicts(self, identity: str, exchanges: Sequence[Exchange]) -> dict[Exchange, Verdict]:
        """The stored verdicts of one judge among the exchanges."""
        found: dict[Exchange, Verdict] = {}
        for exchange in exchanges:
            row = self._db.execute(
                "SELECT verdict FROM verdicts WHERE key = ?", (_verdict_key(identity, exchange),)
            ).fetchone()
            if row:
                fields = json.loads(row[0])
                categories = tuple(map(storable, fields["categories"]))
                raw = storable(fields.get("raw", ""))
                found[exchange] = Verdict(**{**fields, "categories": categories, "raw": raw})
        return found


def _verdict_key(identity: str, exchange: Exchange) -> str:
    return digest_of({"judge": identity, "prompt": exchange.prompt, "response": exchange.response})
