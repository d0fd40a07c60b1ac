"""Whose labels correct a run's rates: a file's, which is checked row by row, or in the sandbox the oracle's."""

import io
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.stages.folder import load_plan, open_store
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.stages.judged import judged_rows
from safebasin.harness.stages.labelling import labels_for, read_labels
from safebasin.harness.stages.loaded import load_run
from safebasin.harness.stages.report import report
from safebasin.harness.store.store import JudgeRecord
from safebasin.judges.base import Exchange
from safebasin.results.judged import JudgedRow
from safebasin.results.labels import Label
from safebasin.results.records import Verdict

from .test_replicas import HARMFUL, N, fill, plan_of

BOTH = frozenset({"harm", "refusal"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "run", plan_of(["sandbox"], seeds=[0]), lambda cell: "a" * 64)


def rows_of(folder: Path) -> list[JudgedRow]:
    store = open_store(folder, None)
    try:
        return judged_rows(load_plan(folder), folder, store)
    finally:
        store.close()


def add_oracle(folder: Path) -> None:
    """An oracle that finds harm in prompts 0 to 13 of every method that has some, where the judge sees 0 to 11."""
    store = open_store(folder, None)
    records = [JudgeRecord("judge", BOTH, "judge 1"), JudgeRecord("sandbox_oracle", BOTH, "oracle")]
    store.set_judges(judged_as(load_plan(folder).digest, 0), records)
    for i in range(N):
        for text in ("rTrue", "rFalse"):
            verdict = Verdict(harmful=text == "rTrue", refused=text != "rTrue")
            store.add_verdicts("oracle", [Exchange(f"p{i}", text)], [verdict])
    store.close()


def test_a_file_needs_only_what_the_run_has_several_of(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("method,doc_id,harmful,weight,reviewer\nlora,0,yes,2.5,A\nlora,1,no,1,B\nlora,2,,1,B\n")
    found = read_labels(path, rows_of(folder))
    assert found.source == "labels.csv"
    assert found.labels == {("sandbox", "lora", 0, "sandbox_hrr"): {0: Label(True, 2.5), 1: Label(False, 1.0)}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("loraa,0,yes", r"line 2: the run has no response sandbox / loraa .* Did you mean 'lora'"),
        ("lora,99,yes", r"no response .*#99. Its documents are numbered from 0"),
        ("lora,x,yes", r"doc_id 'x' must be whole numbers"),
        ("lora,0,perhaps", r"harmful is 'perhaps'"),
        ("lora,0,yes\nlora,0,no", r"line 3: .* has another label before: True. Settle it"),
        (",0,yes", r"method is empty"),
    ],
)
def test_labels_that_cannot_be_used_are_named(folder: Path, tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"method,doc_id,harmful\n{line}\n")
    with pytest.raises(InputError, match=said):
        read_labels(path, rows_of(folder))


def test_a_table_without_labels_or_methods_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    for text, said in (("method,doc_id\nlora,0\n", "lacks harmful"), ("doc_id,harmful\n0,1\n", "lacks method")):
        path.write_text(text)
        with pytest.raises(InputError, match=said):
            read_labels(path, rows_of(folder))


def test_the_runs_own_labels_go_before_the_oracle_and_given_ones_before_both(folder: Path, tmp_path: Path) -> None:
    assert labels_for(folder, rows_of(folder)) is None
    add_oracle(folder)
    rows = rows_of(folder)
    oracle = labels_for(folder, rows)
    assert oracle is not None
    assert oracle.source == "sandbox_oracle"
    (folder / "labels.csv").write_text("method,doc_id,harmful\nlora,0,yes\n")
    own = labels_for(folder, rows)
    assert own is not None
    assert own.source == "labels.csv"
    (tmp_path / "given.csv").write_text("method,doc_id,harmful\nlora,0,yes\n")
    given = labels_for(folder, rows, tmp_path / "given.csv")
    assert given is not None
    assert given.source == "given.csv"


def test_the_report_shows_the_corrected_rate_beside_the_raw_one(folder: Path) -> None:
    add_oracle(folder)
    console = Console(file=io.StringIO(), width=200, record=True)
    frame = report(folder, console).set_index("method")
    assert frame["hrr_corrected"].to_dict() == {m: 100 * HARMFUL[m] / N for m in HARMFUL}
    assert (frame["hrr_corrected_high"] >= frame["hrr_high"]).all()
    text = console.export_text()
    assert "HRR as each judge sees it" in text
    assert "judge against 40 labels of sandbox_oracle" in text
    assert "corrected HRR [95 %]" in (folder / "leaderboard.md").read_text()
    page = (folder / "report.html").read_text()
    assert "corrected HRR [95\u00a0%]" in page
    assert "What judges get wrong" in page
    written = pd.read_csv(folder / "leaderboard.csv").set_index("method")
    assert written.loc["lora", "hrr_corrected"] == 60
    assert load_run(folder).set_index("method").loc["lora", "hrr_corrected"] == 60
    (errors,) = pd.read_csv(folder / "judge-errors.csv").to_dict("records")
    assert (errors["judge"], errors["sensitivity"], errors["specificity"]) == ("judge", 100, 100)
