"""What a worker keeps of a piece of work: a file of lines that it appends to, and that the driver reads as it grows.

Workers write no store: SQLite's locks are not to be trusted over a network, where appending to a file of one's own is.
The driver alone writes the store, and what a dead worker has appended is in it before another one goes on.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import check_disk
from ...judges.base import Exchange
from ...results.records import Verdict
from ..store.records import Point, Sample
from ..store.store import Store

__all__ = ["Part", "Reader", "take", "write_known"]

TICK = 0.5
"""Seconds between two words on the progress of one bar."""


class Part:
    """Stands for the store and for the bars where a piece is done.

    Args:
        path: of the file of this attempt; there is none yet.
        known: file of what the store knew when the piece was sent (`write_known`).

    Raises:
        OSError: they cannot be read or written.
    """

    def __init__(self, path: Path, known: Path) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        self._cells: set[str] = set()
        self._told: dict[str, float] = {}
        for kind, *content in _lines(known):
            if kind == "answer":
                self._answers[content[0]] = content[1]
            else:
                self._cells.add(content[0])
        self._file = path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def answers(self, keys: Sequence[str]) -> dict[str, Any]:
        """See `Store`."""
        return {key: self._answers[key] for key in keys if key in self._answers}

    def add_answers(self, kind: str, rows: Iterable[tuple[str, Mapping[str, Any], Any]]) -> None:
        """See `Store`."""
        listed = [(key, dict(parts), answer) for key, parts, answer in rows]
        self._append("answers", kind, listed)
        for key, _, answer in listed:
            self._answers.setdefault(key, json.loads(json.dumps(answer)))

    def has_cell(self, cell: str) -> bool:
        """See `Store`."""
        return cell in self._cells

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
        """See `Store`."""
        placed, kinds = [asdict(point) for point in points], list(categories.items())
        self._append("cell", cell, dict(parts), metric, [asdict(sample) for sample in samples], n, placed, kinds)
        self._cells.add(cell)

    def assign(self, run: str, name: str, cell: str | None, status: str) -> None:
        """See `Store`."""
        self._append("assign", run, name, cell, status)

    def verdicts(self, identity: str, exchanges: Sequence[Exchange]) -> dict[Exchange, Verdict]:
        """Those that the driver knows have not been sent here."""
        return {}

    def add_verdicts(self, identity: str, exchanges: Sequence[Exchange], verdicts: Sequence[Verdict]) -> None:
        """See `Store`."""
        self._append(
            "verdicts", identity, [[one.prompt, one.response] for one in exchanges], [asdict(one) for one in verdicts]
        )

    def hear(self, bar: str, done: int, total: int, units: float) -> None:
        """Progress, as `RunState.hear`; not every step is told."""
        now = time.monotonic()
        if done >= total or now - self._told.get(bar, 0.0) >= TICK:
            self._told[bar] = now
            self._append("tick", bar, done, total, units, safe=False)

    def update(self, bar: str, done: int, total: int) -> None:
        """See `Bars`."""
        self.hear(bar, done, total, 0)

    def say(self, line: str) -> None:
        """See `Bars`."""
        self._append("say", line, safe=False)

    def tell_whole(self) -> None:
        """The driver knows how far the whole run is."""

    def _append(self, *line: Any, safe: bool = True) -> None:
        """Appends a line; a safe one is on the disk before this returns.

        Raises:
            StorageError: the disk is full.
        """
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            if safe:
                os.fsync(self._file.fileno())
        except OSError as error:
            check_disk(error, self._path)
            raise


class Reader:
    """Reads a part as it grows; the line that a dying worker has not ended is never read."""

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def fresh(self) -> list[list[Any]]:
        """The whole lines since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                read = file.read()
        except FileNotFoundError:
            return []
        whole = read[: read.rfind(b"\n") + 1]
        self._at += len(whole)
        return [json.loads(line) for line in whole.splitlines()]


def take(line: Sequence[Any], store: Store) -> None:
    """Puts a line of a part into the store; one that is there already changes nothing, and progress is passed over."""
    kind, *content = line
    if kind == "answers":
        store.add_answers(content[0], [(key, parts, answer) for key, parts, answer in content[1]])
    elif kind == "assign":
        store.assign(*content)
    elif kind == "verdicts":
        identity, exchanges, verdicts = content
        found = [Verdict(**{**verdict, "categories": tuple(verdict["categories"])}) for verdict in verdicts]
        store.add_verdicts(identity, [Exchange(*exchange) for exchange in exchanges], found)
    elif kind == "cell":
        cell, parts, metric, samples, n, points, kinds = content
        store.add_cell(
            cell, parts, metric, [Sample(**sample) for sample in samples], n, [Point(**point) for point in points],
            {int(doc_id): category for doc_id, category in kinds},
        )  # fmt: skip


def write_known(path: Path, store: Store, weights: Iterable[str]) -> None:
    """Writes what a piece need not do again.

    Args:
        path: of the file.
        store: of the run.
        weights: digests of the base models whose answers the piece may ask for.
    """
    with path.open("w", encoding="utf-8") as file:
        for cell in store.cells():
            file.write(json.dumps(["cell", cell]) + "\n")
        for digest in weights:
            for key, answer in store.answers_by(digest):
                file.write(json.dumps(["answer", key, answer]) + "\n")


def _lines(path: Path) -> Iterator[list[Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)
