"""Review sheets and their labels, in the store's file."""

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from .records import LabelRecord, SheetItem, SheetRecord
from .schema import seal

__all__ = ["Reviews"]


class Reviews:
    """The sheets and labels in an open store.

    Args:
        database: the store's.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._db = database

    def add_sheet(self, sheet: SheetRecord) -> None:
        """Adds a sheet; one that is there already stays."""
        about = {name: value for name, value in asdict(sheet).items() if name not in ("id", "run")}
        with self._db:
            row = (sheet.id, sheet.run, json.dumps(about))
            sealed = (*row, time.time(), seal(*row))
            self._db.execute("INSERT OR IGNORE INTO sheets VALUES (?, ?, ?, ?, ?)", sealed)

    def sheets(self, run: str) -> dict[str, SheetRecord]:
        """The sheets of a run by id, the oldest first."""
        rows = self._db.execute("SELECT sheet, about FROM sheets WHERE run = ? ORDER BY created, sheet", (run,))
        found = {}
        for sheet, text in rows:
            about = json.loads(text)
            items = tuple(SheetItem(**item) for item in about.pop("items"))
            found[sheet] = SheetRecord(id=sheet, run=run, items=items, **about)
        return found

    def foreign(self, run: str) -> list[str]:
        """The ids of all sheets of other runs."""
        return [sheet for (sheet,) in self._db.execute("SELECT sheet FROM sheets WHERE run != ?", (run,))]

    def add_labels(self, sheet: str, reviewer: str, said: Mapping[str, tuple[str, str]]) -> None:
        """Adds a reviewer's (label, note) by item, in one transaction; what the reviewer said before is replaced."""
        rows = [(sheet, item, reviewer, label, note) for item, (label, note) in said.items()]
        with self._db:
            sealed = [(*row, time.time(), seal(*row)) for row in rows]
            self._db.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?)", sealed)

    def labels(self, sheet: str) -> Sequence[LabelRecord]:
        """All labels of a sheet, by reviewer and item."""
        found = self._db.execute(
            "SELECT item, reviewer, label, note FROM labels WHERE sheet = ? ORDER BY reviewer, item", (sheet,)
        )
        return [LabelRecord(*row) for row in found]
