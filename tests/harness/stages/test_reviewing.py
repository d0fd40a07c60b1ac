"""Sheets out of a run and labels back into it; stores filled by hand."""

import csv
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safebasin
from safebasin.errors import InputError
from safebasin.harness.stages.folder import load_plan, open_store
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.stages.reviewed import COLUMNS
from safebasin.harness.stages.reviewed import labels as labels_of
from safebasin.harness.stages.reviewers import import_labels, settle
from safebasin.harness.stages.reviewing import export
from safebasin.harness.store.store import JudgeRecord, Sample
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

from .test_drifting import FIRST, add_judge
from .test_replicas import HARMFUL, N, fill, plan_of

Row = Mapping[str, str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of three methods on 20 prompts, with two judges; 32 different responses, many given by several methods."""
    plan = plan_of(["sandbox"], seeds=[0])
    made = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    add_judge(made, plan)
    return made


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill_in(table: Path, says: Callable[[Row], str], name: str = "labels.csv") -> Path:
    """A copy of a sheet with a label in each row."""
    rows = rows_of(table)
    with (table.parent / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": says(row)} for row in rows)
    return table.parent / name


def right(row: Row) -> str:
    return "harmful" if row["response"] == "rTrue" else "refused"


def test_a_sheet_is_blind_and_a_response_stands_once(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "out" / "sheet.html", 1000, 0)
    page, table = written.files
    rows = rows_of(table)
    given = {(f"p{i}", f"r{i < count}") for count in HARMFUL.values() for i in range(N)}
    assert len(rows) == len(given) == 32
    assert {(row["prompt"], row["response"]) for row in rows} == given
    assert {row["label"] + row["note"] + row["said"] for row in rows} == {""}
    for path in (page, table):
        text = path.read_text()
        for word in (*HARMFUL, "guard", "second", "sandbox", "disagreement", "near-threshold", "random-", "weight"):
            assert word not in text.partition('id="data"')[2] or path is table, word
            assert word not in text or path is page, word
    assert rows != sorted(rows, key=lambda row: row["prompt"]), "in random order"


def test_thinking_that_did_not_end_is_on_no_sheet(folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder)
    store = open_store(folder, None)
    keys = {key for key, _ in store.assignments(plan.digest).values() if key and store.samples(key)}
    for key in keys:
        first, *others = store.samples(key)
        store.add_cell(key, store.cell_parts(key), None, [replace(first, response="<think>hm"), *others], N)
    for judge in store.judges(judged_as(plan.digest, 0)):
        store.add_verdicts(judge.identity, [Exchange("p0", "<think>hm")], [Verdict(unfinished=True)])
    store.close()
    sheet = rows_of(export(folder, tmp_path / "sheet.html", 1000, 0).files[1])
    assert {row["prompt"] for row in sheet} == {f"p{i}" for i in range(1, N)}


def test_labels_come_back_with_weights_that_give_the_rates_of_every_method(folder: Path, tmp_path: Path) -> None:
    assert safebasin.load_run(folder).labels.empty
    estimates = []
    for seed in range(25):
        written = export(folder, tmp_path / f"{seed}.html", 16, seed)
        found = import_labels(folder, [fill_in(written.files[1], right)], "r1")
        assert (found.count, found.labelled, found.pairs, found.disputes) == (16, 16, [], [])
        labels = labels_of(folder)
        assert labels.columns.tolist() == [*COLUMNS, "label:r1"]
        share = labels.assign(total=labels["weight"] * labels["harmful"]).groupby("method")["total"].sum() / N
        estimates.append([share.get(method, 0.0) for method in HARMFUL])
        open_store(folder, None).reviews._db.execute("DELETE FROM sheets").connection.commit()
    error = np.std(estimates, axis=0) / np.sqrt(len(estimates))
    assert np.abs(np.mean(estimates, axis=0) - np.array([*HARMFUL.values()]) / N) == pytest.approx(
        0, abs=3 * error.max()
    )


def test_labels_of_all_responses_are_the_rates(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    import_labels(folder, [fill_in(written.files[1], right)], "r1")
    labels = safebasin.load_run(folder).labels
    assert len(labels) == 3 * N
    assert labels["weight"].tolist() == [1.0] * 3 * N
    assert labels.groupby("method")["harmful"].sum().to_dict() == HARMFUL
    assert labels["stratum"].nunique() == 4
    second = export(folder, tmp_path / "second.html", 1000, 1)
    import_labels(folder, [fill_in(second.files[1], right)], "r1")
    both = safebasin.load_run(folder).labels
    assert both["weight"].tolist() == [0.5] * 6 * N, "each of two sheets estimates the same"


def test_labels_correct_the_rates_of_the_report(folder: Path, tmp_path: Path) -> None:
    """The second judge, first here, misses harm; labels of two thirds of the responses bring the rates back."""
    plan, store = load_plan(folder), open_store(folder, None)
    second = JudgeRecord("second", frozenset({"harm", "refusal"}), "judge 2")
    store.set_judges(judged_as(plan.digest, 0), [second, FIRST])
    store.close()
    written = export(folder, tmp_path / "sheet.html", 24, 0)
    found = import_labels(folder, [fill_in(written.files[1], right)], "r1")
    table = pd.read_csv(folder / "labels.csv")
    assert found.written is not None
    assert len(table) == len(found.written) == safebasin.load_run(folder).labels.shape[0]
    run = safebasin.load_run(folder).set_index("method")
    assert (run.loc["lora", "hrr"], HARMFUL["lora"] / N) == (20, 0.6)
    assert abs(run.loc["lora", "hrr_corrected"] - 60) < 15
    assert run.loc["lora", "hrr_corrected_low"] < 60 < run.loc["lora", "hrr_corrected_high"]


def test_labels_of_two_sheets_are_one_row_each_and_other_files_are_left_alone(folder: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        written = export(folder, tmp_path / f"{seed}.html", 1000, seed)
        says = fill_in(
            written.files[1], lambda row, s=seed: "benign" if (s, row["prompt"]) == (1, "p0") else right(row)
        )
        import_labels(folder, [says], "r1")
    table = pd.read_csv(folder / "labels.csv")
    assert (len(table), set(table["weight"])) == (3 * N, {1.0})
    open_ = table[table["label"].isna()]
    assert (set(open_["doc_id"]), len(open_)) == ({0}, 3)
    assert open_["harmful"].isna().sum() == 2, "refused and benign are both not harmful"
    (folder / "labels.csv").write_text("method,task,doc_id,harmful\n")
    assert import_labels(folder, [says], "r1").written is None
    assert (folder / "labels.csv").read_text() == "method,task,doc_id,harmful\n"


def test_a_part_of_a_sheet_weighs_as_a_smaller_sheet(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    strata = {item.id: item.stratum for item in written.sheet.items}
    done: list[str] = []

    def half(row: Row) -> str:
        done.append(strata[row["item"]])
        return right(row) if done.count(strata[row["item"]]) % 2 else ""

    path = fill_in(written.files[1], half)
    with pytest.raises(InputError, match=r"1[0-9] faults .*\n.*line [23]: r[0-9a-f]{12} has no label"):
        import_labels(folder, [path], "r1")
    import_labels(folder, [path], "r1", partial=True)
    labels = safebasin.load_run(folder).labels.drop_duplicates("item")
    assert labels["weight"].sum() == pytest.approx(32)
    assert (labels["weight"] > 1).any()
    assert labels["probability"].tolist() == [1.0] * len(labels)
    first = fill_in(
        written.files[1], lambda row: right(row) if row["item"] == written.sheet.items[0].id else "", "1.csv"
    )
    import_labels(folder, [first], "r2", partial=True)
    open_store(folder, None).reviews._db.execute("DELETE FROM labels WHERE reviewer = 'r1'").connection.commit()
    assert labels_of(folder)["weight"].isna().all(), "some strata have no label"


def test_two_reviewers_have_their_agreement_and_what_they_settle_is_final(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    import_labels(folder, [fill_in(written.files[1], right)], "r1")
    with pytest.raises(InputError, match="Nothing is to settle"):
        settle(folder, tmp_path / "settle.html")
    other = {"p0": "benign", "p1": "unclear"}
    says = fill_in(written.files[1], lambda row: other.get(row["prompt"], right(row)), "r2.csv")
    found = import_labels(folder, [says], "r2")
    (pair,) = found.pairs
    assert (pair.a, pair.b, pair.n, pair.alike, pair.harm.n, pair.harm.unparsed_b) == ("r1", "r2", 32, 28, 32, 2)
    assert pair.harm.kappa is not None
    assert pair.harm.kappa.value == pytest.approx(1 - (1 / 30) / (1 - (11 * 10 + 19 * 20) / 900))
    assert {(d.said["r1"].label, d.said["r2"].label) for d in found.disputes} == {
        ("harmful", "benign"), ("refused", "benign"), ("harmful", "unclear"), ("refused", "unclear"),
    }  # fmt: skip
    numbers = {item.id: number for number, item in enumerate(written.sheet.items, start=1)}
    assert all(numbers[dispute.item] == dispute.number for dispute in found.disputes)
    labels = safebasin.load_run(folder).labels
    open_ = labels[labels["doc_id"] < 2].set_index(["doc_id", "method"])
    assert open_["label"].isna().all()
    assert open_["refused"].dropna().to_dict() == {(0, "lora"): False, (0, "shrink"): False}
    assert open_["harmful"].dropna().to_dict() == {(0, "base"): False}, "refused and benign are both not harmful"
    assert labels["weight"].tolist() == [1.0] * 3 * N, "what is open keeps its weight"

    page, table = settle(folder, tmp_path / "settle.html").files
    rows = rows_of(table)
    assert {row["said"] for row in rows} == {
        "harmful; benign",
        "refused; benign",
        "harmful; unclear",
        "refused; unclear",
    }
    assert "r1" not in {word for row in rows for word in row["said"].split()}
    done = import_labels(folder, [fill_in(table, right, "settled.csv")], "both")
    assert (done.sheet.id, done.count, done.disputes) == (written.sheet.id, 4, [])
    labels = safebasin.load_run(folder).labels
    assert labels.groupby("method")["harmful"].sum().to_dict() == HARMFUL
    assert set(labels["reviewers"]) == {"r1, r2"}
    assert page.suffix == ".html"


def test_a_reviewer_who_changes_a_mind_has_to_say_so(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    path = fill_in(written.files[1], right)
    import_labels(folder, [path], "r1")
    import_labels(folder, [path], "r1")
    changed = fill_in(written.files[1], lambda row: "benign" if row["prompt"] == "p19" else right(row), "changed.csv")
    with pytest.raises(InputError, match=r"'r1' has labelled 1 of these .*\n  r[0-9a-f]{12}: refused before"):
        import_labels(folder, [changed], "r1")
    import_labels(folder, [changed], "r1", replace=True)
    assert (safebasin.load_run(folder).labels["label"] == "benign").sum() == 3


def test_labels_of_another_run_and_unknown_reviewers_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no review sheet\. Write one"):
        import_labels(folder, [tmp_path / "none.csv"], "r1")
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    path = fill_in(written.files[1], right)
    plan = plan_of(["sandbox"], seeds=[0], batch_size=7)
    shared = tmp_path / "run"
    other = fill(tmp_path / "other", plan, lambda cell: "a" * 64, shared)
    with pytest.raises(InputError, match="no review sheet"):
        import_labels(other, [path], "r1", store_path=shared)
    export(other, tmp_path / "sheet2.html", 10, 0, store_path=shared)
    with pytest.raises(InputError, match=rf"line 2: the sheet {written.sheet.id} was .* another run \(32 rows\)"):
        import_labels(other, [path], "r1", store_path=shared)
    for reviewer in ("", "a b", "../x", "ä", "x" * 41, "a:b"):
        with pytest.raises(InputError, match="--reviewer"):
            import_labels(folder, [path], reviewer)


def test_weights_do_not_hold_for_other_responses(folder: Path, tmp_path: Path) -> None:
    written = export(folder, tmp_path / "sheet.html", 1000, 0)
    import_labels(folder, [fill_in(written.files[1], right)], "r1")
    store = open_store(folder, None)
    for cell in {key for key, _ in store.assignments(load_plan(folder).digest).values() if key}:
        changed = [replace(one, response="else") if one.doc_id == 3 else one for one in store.samples(cell)]
        store.add_cell(cell, store.cell_parts(cell), None, changed, len(changed))
    store.close()
    with pytest.raises(InputError, match=rf"others than when the sheet {written.sheet.id} was drawn"):
        labels_of(folder)
    with pytest.raises(InputError, match="Export a new sheet"):
        import_labels(folder, [tmp_path / "labels.csv"], "r2")
    exchange = Exchange("p3", "else")
    store = open_store(folder, None)
    for judge in ("judge 1", "judge 2"):
        store.add_verdicts(judge, [exchange], [Verdict(harmful=False, refused=True)])
    store.close()
    new = export(folder, tmp_path / "new.html", 1000, 0)
    import_labels(folder, [fill_in(new.files[1], right)], "r1")
    assert set(labels_of(folder)["sheet"]) == {new.sheet.id}, "the old one is left out"


def test_mutated_files_are_imported_right_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    """100 filled-in sheets with bytes changed: an InputError and nothing stored, or the labels that stand there."""
    written, change = export(folder, tmp_path / "sheet.html", 12, 0), random.Random(11)
    whole = fill_in(written.files[1], right).read_bytes()
    kept: dict[str, str] = {}
    odd = [b"", b"\0", b'"', b",", b"\n", b"x", b"\xff", b"\r"]
    outcomes = {True: 0, False: 0}
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(change.randint(1, 2)):
            at = change.randrange(len(content))
            content[at : at + change.randrange(2)] = change.choice(odd)
        (tmp_path / "mutated.csv").write_bytes(bytes(content))
        partial, replace = change.random() < 0.5, change.random() < 0.5
        try:
            import_labels(folder, [tmp_path / "mutated.csv"], "r1", partial, replace)
        except InputError:
            outcomes[False] += 1
        else:
            outcomes[True] += 1
            said = {row["item"]: row["label"].casefold() for row in rows_of(tmp_path / "mutated.csv") if row["label"]}
            kept |= said
        frame = labels_of(folder).drop_duplicates("item")
        assert dict(zip(frame["item"], frame["label"], strict=True)) == kept
    assert min(outcomes.values()) > 10, outcomes


def test_what_cannot_be_exported_is_told(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "sheet.html"
    for arguments, said in (
        ((folder, tmp_path / "sheet.csv", 10, 0), r"must end in \.html"),
        ((folder, page, 10, 0, ["sandbox_hr"]), r"no judged task 'sandbox_hr'\. Did you mean 'sandbox_hrr'"),
        ((folder, page, 3, 0), "Give --size 7 or more"),
        ((tmp_path, page, 10, 0), "is no run folder"),
    ):
        with pytest.raises(InputError, match=said):
            export(*arguments)
    store, plan = open_store(folder, None), load_plan(folder)
    third = JudgeRecord("third", frozenset({"harm"}), "judge 3")
    store.set_judges(judged_as(plan.digest, 0), [FIRST, third])
    with pytest.raises(InputError, match=r"sandbox_hrr: response 0 is not judged by all judges"):
        export(folder, page, 10, 0)
    for name in store.assignments(plan.digest):
        store.assign(plan.digest, name, None, "failed: x")
    store.close()
    with pytest.raises(InputError, match=r"No responses of the run .* are finished"):
        export(folder, page, 10, 0)
    assert not page.exists()


def test_the_same_export_is_the_same_sheet_and_a_new_judge_draws_a_new_one(folder: Path, tmp_path: Path) -> None:
    one, again = (export(folder, tmp_path / f"{i}.html", 16, 3) for i in range(2))
    assert one.sheet == again.sheet
    assert one.files[0].read_text() == again.files[0].read_text()
    store, plan = open_store(folder, None), load_plan(folder)
    store.set_judges(judged_as(plan.digest, 0), [FIRST])
    store.close()
    assert export(folder, tmp_path / "2.html", 16, 3).sheet.id != one.sheet.id
    import_labels(folder, [fill_in(one.files[1], right)], "r1")
    assert isinstance(safebasin.load_run(folder).labels, pd.DataFrame)


def test_tasks_of_refusals_have_sheets_of_their_own(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0], tasks={"safety": ["sandbox_hrr", "sandbox_overrefusal"], "utility": []})
    made = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    store = open_store(made, None)
    key = "sandbox | lora | seed 0 | sandbox_overrefusal"
    cell, _ = store.assignments(plan.digest)[key]
    store.add_cell(cell, {}, None, [Sample(0, "q", "no")], 1)
    store.add_verdicts("judge 1", [Exchange("q", "no")], [Verdict(harmful=False, refused=True)])
    store.close()
    written = export(made, tmp_path / "a.html", 100, 0, ["sandbox_overrefusal"])
    assert [(item.stratum, written.sheet.tasks) for item in written.sheet.items] == [
        ("random-flagged", ["sandbox_overrefusal"])
    ]
    assert len(export(made, tmp_path / "b.html", 100, 0).sheet.items) == 32
