"""Drift per judge and category, from stores filled by hand."""

from pathlib import Path

import pandas as pd
import pytest
import safebasin
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.plan import Plan
from safebasin.harness.stages.folder import open_store
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.stages.report import report
from safebasin.harness.store.store import JudgeRecord
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

from .test_replicas import WORLDS, N, fill, plan_of

FIRST = JudgeRecord("guard", frozenset({"harm"}), "judge 1")


def add_judge(folder: Path, plan: Plan, name: str = "second") -> None:
    """A second judge: it calls every third harmful answer harmful, of category S2, and the last prompt's unparsed."""
    store = open_store(folder, None)
    store.set_judges(judged_as(plan.digest, 0), [FIRST, JudgeRecord(name, frozenset({"harm", "refusal"}), "judge 2")])
    for i in range(N):
        for response in ("rTrue", "rFalse"):
            harmful = None if i == N - 1 else response == "rTrue" and i % 3 == 0
            verdict = Verdict(harmful=harmful, refused=not harmful, categories=("S2",) if harmful else ())
            store.add_verdicts("judge 2", [Exchange(f"p{i}", response)], [verdict])
    store.close()


def test_each_judge_and_category_has_its_rows(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0])
    folder = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    add_judge(folder, plan)
    table = safebasin.load_run(folder).drift()
    assert table[["judge", "category", "method", "measure"]].to_numpy().tolist() == [
        ["guard", "", "shrink", "hrr"], ["second", "", "shrink", "hrr"], ["second", "S2", "shrink", "hrr"],
    ]  # fmt: skip
    guard, second, category = (row for _, row in table.iterrows())
    assert (guard["base"], guard["tuned"], guard["restored"]) == (0, 60, 10)
    assert guard["recovered"] == pytest.approx(100 * 50 / 60)
    assert (second["tuned"], second["restored"]) == (20, 5)  # of prompts 0 to 11 every third; of 0 and 1 the first
    assert second["recovered"] == pytest.approx(75) or pd.isna(second["recovered"])
    assert (category["tuned"], category["restored"]) == (20, 5)


def test_two_judges_of_one_name_are_told_apart(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0])
    folder = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    add_judge(folder, plan, "guard")
    assert list(dict.fromkeys(safebasin.load_run(folder).drift()["judge"])) == ["guard", "guard 2"]


def test_worlds_are_replicas_and_the_report_writes_the_headline(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(WORLDS), lambda cell: f"digest of {cell.model}")
    report(folder, Console(quiet=True))
    (row,) = pd.read_csv(folder / "drift.csv").to_dict("records")
    assert (row["model"], row["worlds"], row["finetunings"], row["n"]) == ("3 worlds", 3, 2, N)
    own = safebasin.load_run(folder).drift().iloc[0]
    assert own["recovered"] == pytest.approx(row["recovered"], rel=1e-5) == pytest.approx(100 * 50 / 60, rel=1e-5)
    assert own["recovered_low"] == pytest.approx(row["recovered_low"], rel=1e-5)


def test_a_run_without_lora_has_no_drift(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(["sandbox"], methods=["base", "shrink"]), lambda cell: "a" * 64)
    report(folder, Console(quiet=True))
    assert not (folder / "drift.csv").exists()
    with pytest.raises(InputError, match="finished row 'lora'"):
        safebasin.load_run(folder).drift()


def test_a_part_of_a_run_is_a_plain_table(tmp_path: Path) -> None:
    run = safebasin.load_run(fill(tmp_path / "run", plan_of(["sandbox"]), lambda cell: "a" * 64))
    assert type(run[run["method"] == "lora"]) is pd.DataFrame
    assert run.set_index("method").loc["shrink", "hrr"].tolist() == [10, 10]


def test_what_is_not_judged_by_all_is_told(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0])
    folder = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    store = open_store(folder, None)
    third = JudgeRecord("third", frozenset({"harm"}), "judge 3")
    store.set_judges(judged_as(plan.digest, 0), [FIRST, third])
    store.close()
    with pytest.raises(InputError, match="not judged"):
        safebasin.load_run(folder).drift()
