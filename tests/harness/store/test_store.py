"""The store keeps what it is given, and never overwrites a response."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from safebasin.errors import InputError, StorageError
from safebasin.harness.store.store import JudgeRecord, Sample, Store
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store.sqlite", session="one")


def test_answers_come_back_also_in_another_process(store: Store) -> None:
    store.add_answers("generate_until", [("a", {"ids": [1]}, "text"), ("b", {}, [-1.5, True])])
    store.close()
    again = Store(store.path, session="two")
    assert again.answers(["a", "b", "c"]) == {"a": "text", "b": [-1.5, True]}
    assert again.counts() == {"one": 2}


def test_an_answer_is_never_overwritten(store: Store) -> None:
    """The first run of two on one store that has an answer keeps it."""
    other = Store(store.path, session="two")
    store.add_answers("generate_until", [("a", {}, "text")])
    other.add_answers("generate_until", [("b", {}, "more"), ("a", {}, "other")])
    assert other.answers(["a", "b"]) == {"a": "text", "b": "more"}
    assert store.counts() == {"one": 1, "two": 1}


def test_verdicts_belong_to_one_judge_and_one_exchange(store: Store) -> None:
    verdict = Verdict(harmful=True, score=0.75, categories=("S2",), raw="unsafe\nS2")
    store.add_verdicts("guard 1", [Exchange("p", "r")], [verdict])
    assert store.verdicts("guard 1", [Exchange("p", "r"), Exchange("p", "other")]) == {Exchange("p", "r"): verdict}
    assert store.verdicts("guard 2", [Exchange("p", "r")]) == {}


def test_cells_samples_and_judges(store: Store) -> None:
    samples = [Sample(1, "p1", "r1"), Sample(0, "p0", "r0")]
    store.add_cell("key", {"task": "t"}, None, samples, 2)
    assert store.has_cell("key")
    assert not store.has_cell("other")
    assert store.samples("key") == samples[::-1]
    assert (store.metric("key"), store.cell_parts("key")) == ((None, 2), {"task": "t"})
    judges = [JudgeRecord("b", frozenset({"harm"}), "b/1"), JudgeRecord("a", frozenset({"refusal"}), "a/1")]
    store.set_judges("run", judges)
    assert store.judges("run") == judges


def test_a_store_of_another_version_is_refused(store: Store) -> None:
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(InputError, match="version 99"):
        Store(store.path)


def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.sqlite").write_text("not a database, but long enough to be taken for one by its size alone" * 20)
    with pytest.raises(InputError, match="is damaged: file is not a database"):
        Store(tmp_path / "store.sqlite")


def test_kinds_of_request_are_kept_beside_the_samples_and_checked(store: Store) -> None:
    samples = [Sample(0, "p", "r"), Sample(1, "q", "s")]
    store.add_cell("one", {}, None, samples, 2, categories={1: "fraud"})
    store.add_cell("two", {}, None, samples, 2)
    assert store.categories("one") == {1: "fraud"}
    assert store.categories("two") == {}
    store.add_cell("one", {}, None, samples, 2, categories={0: "other"})
    assert store.categories("one") == {0: "other"}
    with closing(sqlite3.connect(store.path)) as database, database:
        database.execute("UPDATE categories SET category = 'changed'")
    with pytest.raises(StorageError, match="is not as it was written"):
        store.categories("one")
