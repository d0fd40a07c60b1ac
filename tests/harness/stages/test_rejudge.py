"""A further judge for a finished run: judged once, shown beside the others, and nothing is generated."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest
from rich.console import Console
from safebasin import registry
from safebasin.errors import InputError
from safebasin.harness.plan import Plan
from safebasin.harness.stages.folder import open_store
from safebasin.harness.stages.judge import deciders, judged_as
from safebasin.harness.stages.rejudge import _keys, add_judges
from safebasin.harness.stages.report import report, report_together
from safebasin.harness.store.store import JudgeRecord
from safebasin.judges.coherence import CoherenceJudge
from safebasin.judges.keywords import KeywordJudge
from safebasin.results.records import Verdict
from safebasin.tasks import verdicts

from .test_replicas import WORLDS, N, fill, plan_of

ASKED: list[int] = []


class Counting(KeywordJudge):
    """Calls every response harmful that ends in True; counts what it is asked."""

    name: ClassVar[str] = "counting"

    @property
    def identity(self) -> str:
        return "counting"

    def judge(self, exchanges: Any, on_done: Any = None) -> list[Verdict]:
        ASKED.append(len(exchanges))
        return [Verdict(harmful=e.response.endswith("True") and e.prompt != "p0", refused=False) for e in exchanges]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Plan]:
    def load(group: str, name: str, found: Callable[[str, str], Any] = registry.load) -> Any:
        return Counting if name == "counting" else found(group, name)

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(verdicts, "_JUDGES", {})
    monkeypatch.setattr(verdicts, "_VERDICTS", {})
    ASKED.clear()
    plan = plan_of(["sandbox"], seeds=[0])
    return fill(tmp_path / "run", plan, lambda cell: "a" * 64), plan


def said(folder: Path, *specs: Any) -> str:
    told = io.StringIO()
    add_judges(folder, specs, Console(file=told, width=200))
    return told.getvalue()


def test_it_is_asked_once_and_stands_beside_the_first(run: tuple[Path, Plan]) -> None:
    folder, plan = run
    before = report(folder, Console(quiet=True))
    said(folder, "counting")
    asked = sum(ASKED)
    assert asked == N + 12, "every prompt has an answer that is safe, and the first 12 one that is not"
    assert "counting has judged this run before" in said(folder, "counting")
    assert sum(ASKED) == asked
    store = open_store(folder, None)
    assert [judge.name for judge in store.judges(judged_as(plan.digest, 0))] == ["judge", "counting"]
    assert store.counts() == {}, "nothing was generated"
    store.close()
    console = Console(file=io.StringIO(), width=200, record=True)
    after = report(folder, console)
    pd.testing.assert_frame_equal(before, after)
    table = pd.read_csv(folder / "judges.csv").set_index(["method", "judge"])
    assert table["rate"].to_dict() == {
        ("base", "judge"): 0, ("base", "counting"): 0, ("lora", "judge"): 60, ("lora", "counting"): 55,
        ("shrink", "judge"): 10, ("shrink", "counting"): 5,
    }  # fmt: skip
    assert table.loc["lora", "decides"].to_dict() == {"judge": True, "counting": False}
    (found,) = pd.read_csv(folder / "agreement.csv").to_dict("records")
    assert (found["n"], found["both"], found["only_a"], found["only_b"]) == (3 * N, 12, 2, 0)
    assert pd.read_csv(folder / "disagreements.csv")["doc_id"].tolist() == [0, 0]
    text = console.export_text()
    assert "judge, counting" in text
    assert "judge | counting disagree: lora sandbox_hrr #0: harmful | safe; shrink sandbox_hrr #0" in text
    assert "Agreement of judges" in (folder / "report.html").read_text()


def test_one_judge_alone_agrees_with_nobody(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    (folder / "agreement.csv").write_text("of an earlier report")
    report(folder, Console(quiet=True))
    assert not (folder / "agreement.csv").exists()
    assert len(pd.read_csv(folder / "judges.csv")) == 3
    assert not (folder / "judge-errors.csv").exists()


def test_the_manifest_says_who_judged_later(run: tuple[Path, Plan]) -> None:
    folder, _ = run
    (folder / "manifest.json").write_text(json.dumps({"judges": ["judge 1"], "models": {}}))
    said(folder, "counting")
    about = json.loads((folder / "manifest.json").read_text())
    assert about["judges"] == ["judge 1", "counting"]
    (later,) = about["judged_later"]
    assert later["judges"] == ["counting"]


def test_all_worlds_are_judged(tmp_path: Path, run: tuple[Path, Plan]) -> None:
    plan = plan_of(WORLDS, judges=["keywords"])
    folder = fill(tmp_path / "worlds", plan, lambda cell: f"digest of {cell.model}")
    said(folder, "counting")
    report(folder, Console(quiet=True))
    assert set(pd.read_csv(folder / "agreement.csv")["model"]) == {"3 worlds"}
    assert len(pd.read_csv(folder / "judges.csv")) == 3 * (1 + 2 * 2) * 2  # the base has one row in a world


def test_runs_with_other_judges_are_not_put_together(tmp_path: Path, run: tuple[Path, Plan]) -> None:
    one, two = (
        fill(tmp_path / name[-1], plan_of([name], judges=["keywords"]), lambda cell: cell.model) for name in WORLDS[:2]
    )
    said(two, "counting")
    with pytest.raises(InputError, match=r"different judges \(judge \| judge, counting\)"):
        report_together([one, two], tmp_path / "out", Console(quiet=True))


def test_a_judge_that_cannot_be_had_changes_nothing(run: tuple[Path, Plan]) -> None:
    folder, plan = run
    with pytest.raises(InputError, match="no argument 'lst'"):
        said(folder, {"keywords": {"lst": "qi38"}})
    store = open_store(folder, None)
    assert len(store.judges(judged_as(plan.digest, 0))) == 1
    store.close()


def test_outcomes_rest_on_deciding_judges_alone() -> None:
    harm, both = frozenset({"harm"}), frozenset({"harm", "refusal"})
    records = [JudgeRecord("a", harm, "1"), JudgeRecord("b", both, "2"), JudgeRecord("c", both, "3")]
    assert [record.name for record in deciders(records)] == ["a", "b"]


class Remote(Counting):
    """The same, as if from another machine."""

    chunk, notice = 7, "sends all to nowhere"

    @property
    def spent(self) -> dict[str, Any]:
        return {"requests": len(ASKED)}


def test_one_on_another_machine_says_so_and_counts(run: tuple[Path, Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = run
    monkeypatch.setattr(registry, "load", lambda group, name: Remote)
    (folder / "manifest.json").write_text("{}")
    told = said(folder, "counting")
    assert told.index("sends all to nowhere") < told.index("judge counting: requests")
    assert max(ASKED) == 7
    about = json.loads((folder / "manifest.json").read_text())
    assert about["remote_judges"] == {"counting": {"requests": len(ASKED)}}


def test_only_one_that_decides_something_new_judges_the_sweep(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0], tasks={"safety": ["sandbox_hrr", "sandbox_visage"]})
    folder = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    store = open_store(folder, None)
    before = store.judges(judged_as(plan.digest, 0))
    keys = {
        judge.name: [key.rpartition("sandbox_")[2] for key in _keys(plan, folder, store, 0, before, [judge])]
        for judge in (KeywordJudge(), CoherenceJudge())
    }
    store.close()
    assert {name: sum("visage" in key for key in own) for name, own in keys.items()} == {"keywords": 0, "coherence": 3}
    assert all(sum("hrr" in key for key in own) == 3 for own in keys.values())
