"""Rates as each judge sees them, the labels that are drawn, and what the leaderboard takes over."""

from collections.abc import Callable, Sequence
from hashlib import sha256

import pandas as pd
import pytest
from safebasin.results.judge_table import judge_errors, judge_table, with_corrected
from safebasin.results.judged import JudgedRow, JudgedTask, JudgeNote
from safebasin.results.labels import LEAST, Label, LabelSet, drawn, labels_of_judge
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult
from safebasin.results.records import Verdict
from safebasin.results.statistics import rate

HARM, BOTH = frozenset({"harm"}), frozenset({"harm", "refusal"})
JUDGES = (JudgeNote("guard", HARM), JudgeNote("oracle", BOTH))


def row(
    said: Sequence[tuple[bool | None, bool]], method: str = "lora", role: str = "hrr", units: str = ""
) -> JudgedRow:
    """One response per (guard, oracle); rows with the same `units` answer alike."""
    verdicts = {i: (Verdict(harmful=a), Verdict(harmful=b, refused=not b)) for i, (a, b) in enumerate(said)}
    names = {i: sha256(f"{units or method} {i}".encode()).hexdigest() for i in verdicts}
    return JudgedRow("m", method, 0, JUDGES, [JudgedTask(f"toy_{role}", role, verdicts, names)])


def test_a_quarter_of_each_verdict_is_drawn_and_stands_for_the_rest() -> None:
    task = row([(True, True)] * 80 + [(False, False)] * 30 + [(None, True)] * 4).tasks[0]
    chosen = drawn(task, 0, "harm")
    kinds = [task.verdicts[doc_id][0].harmful for doc_id in chosen]
    assert [kinds.count(kind) for kind in (True, False, None)] == [20, LEAST, 4]
    weights = {task.verdicts[doc_id][0].harmful: weight for doc_id, weight in chosen.items()}
    assert weights == {True: 4, False: 3, None: 1}
    assert sum(chosen.values()) == 114


def test_rows_that_answer_alike_have_the_same_responses_drawn() -> None:
    said = [(i % 3 == 0, i % 3 == 0) for i in range(100)]
    one, two, other = (drawn(row(said, units=units).tasks[0], 0, "harm") for units in ("x", "x", "y"))
    assert one == two
    assert one.keys() != other.keys()


def test_the_oracle_labels_what_others_decide() -> None:
    rows = [row([(True, True)] * 20, role=role) for role in ("hrr", "over_refusal")]
    found = labels_of_judge(rows, "oracle", ["toy_hrr", "toy_over_refusal"])
    assert list(found.labels) == [("m", "lora", 0, "toy_hrr")]  # refusal is decided by the oracle itself
    assert labels_of_judge(rows, "oracle", []).labels == labels_of_judge(rows, "nobody", ["toy_hrr"]).labels == {}
    (own,) = found.labels.values()
    assert set(own.values()) == {Label(True, 2.0)}


def test_each_judge_has_its_rate_and_the_deciding_one_its_correction() -> None:
    """The guard misses every second harmful response: 20 of 80 for it, 40 for the oracle."""
    said = [(i % 2 == 0, True) for i in range(40)] + [(False, False)] * 40
    rows = [row(said)]
    table = judge_table(rows, labels_of_judge(rows, "oracle", ["toy_hrr"]))
    guard, oracle = table.to_dict("records")
    plain = rate(20, 80)
    assert (guard["rate"], guard["rate_low"], guard["rate_high"]) == (plain.value, plain.low, plain.high)
    assert (guard["decides"], oracle["decides"], oracle["rate"]) == (True, False, 50)
    assert guard["labelled"] == 10 + 15  # a quarter of 60 judged safe, and at least ten of 20
    assert guard["corrected_low"] < 50 < guard["corrected_high"]
    assert guard["corrected"] > guard["rate"]
    assert guard["rogan_gladen_low"] < 50 < guard["rogan_gladen_high"]
    assert pd.isna(oracle["corrected"])
    (errors,) = judge_errors(rows, labels_of_judge(rows, "oracle", ["toy_hrr"])).to_dict("records")
    assert (errors["judge"], errors["labelled"], errors["exchanges"], errors["specificity"]) == ("guard", 25, 25, 100)
    assert errors["sensitivity_low"] < 50 < errors["sensitivity_high"]


def test_without_labels_nothing_is_corrected() -> None:
    rows = [row([(True, True), (None, False)])]
    table = judge_table(rows)
    assert table["labels"].isna().all()
    assert table["unparsed_rate"].tolist() == [50, 0]
    assert judge_errors(rows, None).empty
    assert judge_table([JudgedRow("m", "lora", 0, JUDGES, [])]).empty


def test_labels_of_one_row_correct_others_by_the_errors_alone() -> None:
    """Somebody labelled `lora`; `npo` has Rogan-Gladen's rate and none of its own."""
    said = [(i % 2 == 0, True) for i in range(40)] + [(False, False)] * 40
    rows = [row(said), row([(True, True)] * 10 + [(False, False)] * 70, "npo")]
    labels = LabelSet("labels.csv", {("m", "lora", 0, "toy_hrr"): {i: Label(said[i][1]) for i in range(80)}})
    table = judge_table(rows, labels).set_index(["method", "judge"])
    assert table.loc[("lora", "guard"), "corrected"] == pytest.approx(50)
    assert pd.isna(table.loc[("npo", "guard"), "corrected"])
    assert table.loc[("npo", "guard"), "labelled"] == 0
    assert table.loc[("npo", "guard"), "rogan_gladen"] == pytest.approx(25)  # 12.5 of the half that is seen
    assert table.loc[("lora", "oracle"), "corrected"] == pytest.approx(50)  # labels are a file's: it is judged, too


def test_under_refusal_counts_what_does_not_refuse() -> None:
    verdicts = {
        0: (Verdict(refused=True),),
        1: (Verdict(refused=False),),
        2: (Verdict(),),
        3: (Verdict(refused=False),),
    }
    judges = [JudgeNote("words", frozenset({"refusal"}))]
    task = JudgedTask("toy", "under_refusal", verdicts, {i: str(i) for i in verdicts})
    labels = LabelSet("f", {("m", "l", 0, "toy"): {0: Label(True), 1: Label(False), 2: Label(True), 3: Label(True)}})
    (found,) = judge_table([JudgedRow("m", "l", 0, judges, [task])], labels).to_dict("records")
    assert (found["measure"], found["rate"], found["unparsed_rate"]) == ("under_refusal", 50, 25)
    assert found["corrected"] == pytest.approx(25)  # one of four does not refuse


def test_the_leaderboard_takes_the_correction_of_the_deciding_judge(make: Callable[..., MethodResult]) -> None:
    frame = leaderboard(
        [make("lora", "fine-tuning", model="m", hrr="H" * 20 + "B" * 60), make("npo", model="m", hrr="R" * 80)]
    )
    said = [(i < 20, i < 20) for i in range(80)]
    rows = [row(said), row([(False, False)] * 80, "npo")]
    table = judge_table(rows, labels_of_judge(rows[:1], "oracle", ["toy_hrr"]))
    wide = with_corrected(frame, table)
    assert list(wide.columns) == [*frame.columns, "hrr_corrected", "hrr_corrected_low", "hrr_corrected_high"]
    assert wide["hrr_corrected"].tolist()[0] == 25
    assert pd.isna(wide["hrr_corrected"].tolist()[1])
    assert wide["method"].tolist() == ["lora", "npo"]
    assert with_corrected(frame, judge_table(rows)).equals(frame)
