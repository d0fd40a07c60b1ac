"""A store that is damaged at any place: read as it was written or refused with the way out, never read as another."""

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError, StorageError
from safebasin.harness.store.records import LabelRecord, SheetItem, SheetRecord
from safebasin.harness.store.rescue import back_up, found_faults, recover
from safebasin.harness.store.schema import VERSION
from safebasin.harness.store.store import JudgeRecord, Point, Sample, Store
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

LONG = bool(os.environ.get("SAFEBASIN_CRASH"))
"""As `make test-crash` wants it."""
FLIPS, PAGE = 900 if LONG else 60, 4096
ROWS = 96
CELLS = ("a" * 64, "b" * 64, "c" * 64)
KEYS = [f"{i:064x}" for i in range(ROWS)]
EXCHANGES = [Exchange(f"prompt {i}", f"response {i} " + "word " * 9) for i in range(ROWS)]


def fill(path: Path) -> Path:
    """A store with rows in all of its tables, closed."""
    with closing(Store(path, session="one")) as store:
        store.add_answers("generate_until", [(key, {"ids": [i] * 9}, f"text {i}") for i, key in enumerate(KEYS)])
        for number, cell in enumerate(CELLS):
            own = EXCHANGES[number * 32 : number * 32 + 32]
            samples = [Sample(i, one.prompt, one.response, "Sure" * (i % 2)) for i, one in enumerate(own)]
            points = [Point(i, i, 0, 0.5, -1.0, 3) for i in range(32)] if number == 2 else []
            documents = 8 if points else 32  # a sweep has a sample for each point of each document
            store.add_cell(cell, {"task": f"t{number}"}, None, samples, documents, points)
            store.assign("run", f"row {number}", cell, "ok")
        store.add_cell("d" * 64, {"task": "loss"}, 1.25, [], 32)
        store.set_judges("run", [JudgeRecord("keywords", frozenset({"harm"}), "keywords/1")])
        store.add_verdicts("keywords/1", EXCHANGES, [Verdict(harmful=i % 3 == 0) for i in range(ROWS)])
        store.reviews.add_sheet(SheetRecord("sheet", "run", (SheetItem("1", "x"), SheetItem("2", "y"))))
        store.reviews.add_labels("sheet", "r1", {"1": ("harmful", ""), "2": ("refused", "note")})
    return path


def content(path: Path) -> dict[str, Any]:
    """All that a run and a report read of a store."""
    with closing(Store(path)) as store:
        cells = [cell for cell, _ in store.assignments("run").values() if cell]
        return {
            "answers": store.answers(KEYS),
            "assigned": store.assignments("run"),
            "judges": store.judges("run"),
            "metrics": {cell: store.metric(cell) for cell in (*cells, "d" * 64)},
            "parts": {cell: store.cell_parts(cell) for cell in cells},
            "samples": {cell: store.samples(cell) for cell in cells},
            "points": {cell: store.points(cell) for cell in cells},
            "verdicts": store.verdicts("keywords/1", EXCHANGES),
            "sheets": store.reviews.sheets("run"),
            "labels": store.reviews.labels("sheet"),
        }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("whole") / "store.sqlite")


@pytest.fixture(scope="module")
def expected(whole: Path) -> dict[str, Any]:
    return content(whole)


def flipped(data: bytes, seed: int) -> bytes:
    """The file with one bit changed."""
    bit = random.Random(seed).randrange(8 * len(data))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damaged_pages(data: bytes) -> Iterator[bytes]:
    """The file with one page overwritten, for the first page and every third; in the long form every page."""
    for start in range(0, len(data), PAGE) if LONG else range(0, len(data), 3 * PAGE):
        noise = random.Random(start).randbytes(PAGE)
        yield data[:start] + noise + data[start + PAGE :]


def read_or_refused(path: Path, expected: dict[str, Any]) -> bool:
    """Whether the store is refused; what is read must be what was written."""
    try:
        found = content(path)
    except (InputError, StorageError) as error:
        return "sqlite" in str(error)
    assert found == expected
    return False


def test_a_flipped_bit_is_harmless_or_told(whole: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    data, path = whole.read_bytes(), tmp_path / "store.sqlite"
    refused = 0
    for seed in range(FLIPS):
        path.write_bytes(flipped(data, seed))
        refused += read_or_refused(path, expected)
        for log in tmp_path.glob("store.sqlite-*"):
            log.unlink()
    print(f"{refused} of {FLIPS} flipped bits refused, the others read as written")  # noqa: T201
    assert 0 < refused < FLIPS


def test_a_bad_page_is_told_and_the_rest_is_saved(whole: Path, expected: dict[str, Any], tmp_path: Path) -> None:
    told, kept_rows = 0, []
    pages = list(damaged_pages(whole.read_bytes()))
    for number, data in enumerate(pages):
        path = tmp_path / str(number) / "store.sqlite"
        path.parent.mkdir()
        path.write_bytes(data)
        told += read_or_refused(path, expected)
        saved, kept = recover(path)
        assert kept.read_bytes() == data
        assert found_faults(path) == []
        assert saved["responses"] + saved["verdicts"] >= ROWS
        kept_rows.append(saved["responses"])
        with closing(Store(path)) as store:
            assert store.answers(KEYS).items() <= expected["answers"].items()
            for cell, _ in store.assignments("run").values():
                assert store.samples(str(cell)) == expected["samples"][cell]
    print(f"{told} of {len(pages)} bad pages refused; responses saved of {ROWS}: {sorted(kept_rows)}")  # noqa: T201
    assert told >= len(pages) - 2  # a page may be free


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_told(whole: Path, expected: dict[str, Any], tmp_path: Path, share: float) -> None:
    data, path = whole.read_bytes(), tmp_path / "store.sqlite"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"is damaged: .*safebasin store recover"):
        Store(path)
    recover(path)
    with closing(Store(path)) as store:
        assert store.answers(KEYS).items() <= expected["answers"].items()


def changed(whole: Path, path: Path, statement: str) -> Path:
    """A copy of the store in which the pages are sound, and a row is not."""
    shutil.copyfile(whole, path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)
    return path


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE responses SET answer = '\"other\"' WHERE rowid = 7",
        "UPDATE verdicts SET verdict = replace(verdict, 'true', 'null') WHERE rowid = 1",
        "UPDATE samples SET response = 'other' WHERE doc_id = 3",
        "UPDATE prefixes SET prefix = 'other' WHERE doc_id = 3",
        "DELETE FROM samples WHERE doc_id > 25",
        "DELETE FROM samples",
        "UPDATE points SET alpha = 0.25 WHERE doc_id = 3",
        "UPDATE cells SET metric = 1.5 WHERE metric IS NOT NULL",
        "UPDATE assignments SET cell = 'b' WHERE name = 'row 0'",
        "UPDATE judges SET identity = 'keywords/2'",
        "UPDATE labels SET label = 'harmful'",
    ],
)
def test_a_changed_row_is_told_and_not_saved(whole: Path, tmp_path: Path, statement: str) -> None:
    path = changed(whole, tmp_path / "store.sqlite", statement)
    with pytest.raises((InputError, StorageError), match=r"is damaged: .*safebasin store recover"):
        content(path)
    assert found_faults(path)
    recover(path)
    assert found_faults(path) == []


def test_a_row_that_is_no_text_any_more_is_told(whole: Path, tmp_path: Path) -> None:
    path = changed(whole, tmp_path / "store.sqlite", "UPDATE responses SET answer = CAST(x'22ff22' AS TEXT)")
    with pytest.raises(StorageError, match="is damaged"):
        content(path)


def test_a_store_of_version_1_is_read_and_its_new_rows_have_checksums(tmp_path: Path) -> None:
    path = fill(tmp_path / "store.sqlite")
    before = content(path)
    with closing(sqlite3.connect(path)) as database, database:
        tables = ("responses", "verdicts", "cells", "assignments", "judges", "sheets", "labels")
        for table in tables:
            database.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        database.execute("ALTER TABLE cells DROP COLUMN content")
        database.execute("ALTER TABLE cells DROP COLUMN placed")
        database.execute("PRAGMA user_version=1")
    assert content(path) == before
    with closing(Store(path)) as store:
        store.add_answers("generate_until", [("new", {}, "text")])
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
        sealed = database.execute("SELECT COUNT(*) FROM responses WHERE seal IS NOT NULL")
        assert sealed.fetchone() == (1,)
    back_up(path, tmp_path / "copy.sqlite")
    assert content(tmp_path / "copy.sqlite") == before


def test_the_file_alone_holds_what_is_finished_while_a_run_writes(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.sqlite")
    store.add_answers("generate_until", [(key, {}, "text") for key in KEYS])
    store.add_cell("cell", {}, None, [Sample(0, "p", "r")], 1)
    (tmp_path / "copy").mkdir()
    shutil.copyfile(store.path, tmp_path / "copy" / "store.sqlite")
    with closing(Store(tmp_path / "copy" / "store.sqlite")) as copy:
        assert len(copy.answers(KEYS)) == ROWS
        assert copy.samples("cell") == store.samples("cell")
    back_up(store.path, tmp_path / "backup.sqlite")
    assert json.dumps(found_faults(tmp_path / "backup.sqlite")) == "[]"
    assert store.reviews.labels("sheet") == list[LabelRecord]()


def test_a_damaged_store_is_not_backed_up(whole: Path, tmp_path: Path) -> None:
    path = changed(whole, tmp_path / "store.sqlite", "UPDATE samples SET response = 'other' WHERE doc_id = 3")
    with pytest.raises(InputError, match="is not backed up"):
        back_up(path, tmp_path / "backup.sqlite")
    assert not (tmp_path / "backup.sqlite").exists()
