"""What `report` puts together and what it refuses: run folders with stores filled by hand, nothing is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.config.model import RunConfig
from safebasin.harness.plan import Cell, Plan, make_plan
from safebasin.harness.stages.folder import PLAN, name_of, open_store
from safebasin.harness.stages.judge import judged_as
from safebasin.harness.stages.loaded import load_run
from safebasin.harness.stages.replicas import preset_of, report_replicas
from safebasin.harness.stages.report import report, report_together
from safebasin.harness.store.store import JudgeRecord, Sample
from safebasin.judges.base import Exchange
from safebasin.results.method_result import MethodResult, Relapse
from safebasin.results.records import Verdict
from safebasin.tasks.sandbox.location import world_of

from ...results.conftest import judged

N = 20
HARMFUL = {"base": 0, "lora": 12, "shrink": 2}
WORLDS = ["sandbox:1", "sandbox:2", "sandbox:3"]


def plan_of(models: list[str], **changes: Any) -> Plan:
    config = {
        "name": "x", "models": models, "methods": [*HARMFUL], "seeds": [0, 1],
        "tasks": {"safety": ["sandbox_hrr"], "utility": ["sandbox_eval_loss"]}, "judges": ["sandbox_oracle"], **changes,
    }  # fmt: skip
    return make_plan(RunConfig.model_validate_json(json.dumps(config)))


def fill(folder: Path, plan: Plan, digest: Callable[[Cell], str], shared: Path | None = None) -> Path:
    """Makes the run folder of a finished run; `digest` says which model answered each cell."""
    folder.mkdir(exist_ok=True)
    (folder / PLAN).write_text(plan.to_json())
    store = open_store(folder, shared)
    for world in {world_of(spec.id) for spec in plan.config.models}:
        judge = JudgeRecord("judge", frozenset({"harm", "refusal"}), "judge 1")
        store.set_judges(judged_as(plan.digest, world), [judge])
    for cell in plan.cells:
        key = f"{name_of(cell)} {digest(cell)}"
        samples = (
            [Sample(i, f"p{i}", f"r{i < HARMFUL.get(cell.label, 1)}") for i in range(N)] if cell.role == "hrr" else []
        )
        parts = {"model": digest(cell), "adapter": cell.build or ""}
        store.add_cell(key, parts, 0.5 if cell.role == "eval_loss" else None, samples, N)
        exchanges = [Exchange(sample.prompt, sample.response) for sample in samples]
        verdicts = [Verdict(harmful=e.response == "rTrue", refused=e.response != "rTrue") for e in exchanges]
        store.add_verdicts("judge 1", exchanges, verdicts)
        store.assign(plan.digest, name_of(cell), key, "ok")
    store.close()
    return folder


def test_which_models_are_replicas() -> None:
    assert preset_of(WORLDS) == preset_of(["sandbox", "sandbox:3"]) == "sandbox"
    for models in (["sandbox:3"], ["sandbox:3", "sandbox:3"], ["sandbox:3", "some/model"], ["a/b", "a/c"]):
        assert preset_of(models) is None


def test_a_run_over_worlds_gets_the_table_of_claims(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(WORLDS), lambda cell: f"digest of {cell.model}")
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    report(folder, console)
    table = pd.read_csv(folder / "replicas.csv").set_index(["method", "measure"])
    row = table.loc[("shrink", "hrr")]
    assert (row["worlds"], row["finetunings"], row["mean"], row["vs_lora"], row["vs_lora_p"]) == (3, 2, 10, -50, 0.25)
    assert row["reference"] == "shrink"
    assert "Over 3 worlds x 2 fine-tunings" in console.export_text()
    assert load_run(folder)["model_digest"].nunique() == 3
    report(folder, Console(quiet=True), reference="base")
    assert set(pd.read_csv(folder / "replicas.csv")["reference"]) == {"base"}


def test_runs_of_one_world_each_are_reported_as_one_run_of_all(tmp_path: Path) -> None:
    whole = fill(tmp_path / "whole", plan_of(WORLDS), lambda cell: f"digest of {cell.model}")
    parts = [fill(tmp_path / name[-1], plan_of([name]), lambda cell: f"digest of {cell.model}") for name in WORLDS]
    report(whole, Console(quiet=True))
    report_together(parts, tmp_path / "out", Console(quiet=True))
    for name in ("leaderboard.csv", "leaderboard-seeds.csv", "replicas.csv", "replicas.md"):
        assert (tmp_path / "out" / name).read_text() == (whole / name).read_text(), name


def test_runs_of_other_methods_and_seeds_are_reported_as_one_run_of_all(tmp_path: Path) -> None:
    def model(cell: Cell) -> str:
        return "digest of the model"

    whole = fill(tmp_path / "whole", plan_of(WORLDS[:1]), model)
    parts = [
        fill(tmp_path / "lora", plan_of(WORLDS[:1], methods=["base", "lora"]), model),
        fill(tmp_path / "shrink 0", plan_of(WORLDS[:1], methods=["base", "shrink"], seeds=[0]), model),
        fill(tmp_path / "shrink 1", plan_of(WORLDS[:1], methods=["shrink"], seeds=[1]), model),
    ]
    report(whole, Console(quiet=True))
    report_together(parts, tmp_path / "out", Console(quiet=True))
    order = ["method", "seed"]
    one, other = (pd.read_csv(folder / "leaderboard.csv").sort_values(order) for folder in (whole, tmp_path / "out"))
    assert one.to_csv(index=False) == other.to_csv(index=False)
    assert (tmp_path / "out" / "report.html").is_file()


def test_what_cannot_be_compared_is_not_put_together(tmp_path: Path) -> None:
    one, two = (fill(tmp_path / name[-1], plan_of([name]), lambda cell: cell.model) for name in WORLDS[:2])
    again = fill(tmp_path / "again", plan_of(WORLDS[:1]), lambda cell: "of other weights")
    with pytest.raises(InputError, match=r"both have the row sandbox:1 / base / seed 0, with other answers"):
        report_together([one, two, again], tmp_path / "out", Console(quiet=True))
    apart = fill(tmp_path / "apart", plan_of(WORLDS[:1], methods=["no_op"]), lambda cell: "of other weights")
    with pytest.raises(InputError, match=r"rows of 'sandbox:1' are of 2 different models"):
        report_together([one, apart], tmp_path / "out", Console(quiet=True))
    other = fill(tmp_path / "other", plan_of(WORLDS[2:], batch_size=7), lambda cell: cell.model)
    with pytest.raises(InputError, match="different configs: batch_size differ"):
        report_together([one, other], tmp_path / "out", Console(quiet=True))
    named = [
        fill(
            tmp_path / f"named {epsilon}",
            plan_of([name], methods=[{"shrink": {"label": "own", "epsilon": epsilon}}]),
            lambda cell: cell.model,
        )
        for name, epsilon in zip(WORLDS[:2], (0.1, 0.2), strict=True)
    ]
    with pytest.raises(InputError, match="mean different things by 'own'"):
        report_together(named, tmp_path / "out", Console(quiet=True))
    assert not (tmp_path / "out").exists()


def test_one_world_gets_none(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(["sandbox:1"]), lambda cell: "one")
    report(folder, Console(quiet=True))
    assert not (folder / "replicas.csv").exists()


def test_a_method_that_failed_in_one_world_is_left_out(tmp_path: Path) -> None:
    plan = plan_of(WORLDS)
    folder = fill(tmp_path / "run", plan, lambda cell: f"digest of {cell.model}")
    store = open_store(folder, None)
    store.assign(plan.digest, "sandbox:2 | shrink | seed 1 | sandbox_hrr", None, "failed: no memory")
    store.close()
    report(folder, Console(quiet=True))
    assert set(pd.read_csv(folder / "replicas.csv")["method"]) == {"base", "lora"}
    assert "Not shown: shrink, which has no finished row in sandbox:2, seed 1." in (folder / "replicas.md").read_text()


def test_a_run_continued_on_another_machine_is_not_reported_until_it_is_finished(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(["sandbox"]), lambda cell: f"{cell.seed:064d}")
    with pytest.raises(InputError, match=r"rows of 'sandbox' are of 2 different models \(digests 000000000000, 0"):
        report(folder, Console(quiet=True))
    with pytest.raises(InputError, match="2 different models"):
        load_run(folder)
    assert not (folder / "leaderboard.csv").exists()


def test_a_row_answered_by_two_models_is_refused(tmp_path: Path) -> None:
    folder = fill(tmp_path / "run", plan_of(["sandbox"]), lambda cell: "a" * 64 if cell.role == "hrr" else "b" * 64)
    with pytest.raises(InputError, match=r"tasks of 'sandbox / base / seed 0' .* models \(digests a{12}, b{12}\)"):
        report(folder, Console(quiet=True))


def test_rows_that_another_machine_put_in_a_shared_store_are_refused(tmp_path: Path) -> None:
    plan, shared = plan_of(["sandbox"]), tmp_path / "shared"
    here = fill(tmp_path / "here", plan, lambda cell: "a" * 64, shared)
    (here / "manifest.json").write_text(json.dumps({"models": {"sandbox": {"digest": "a" * 64}}}))
    report(here, Console(quiet=True), shared)
    there = fill(tmp_path / "there", plan, lambda cell: "b" * 64, shared)
    report(there, Console(quiet=True), shared)
    with pytest.raises(InputError, match=r"made with 'sandbox' of digest aaaaaaaaaaaa, but .* of digest bbbbbbbbbbbb"):
        report(here, Console(quiet=True), shared)


def test_where_checkpoints_were_fine_tuned_again_steps_are_counted_over_worlds(tmp_path: Path) -> None:
    """`shrink` comes back after 10 of 40 steps in all worlds, the base not at all."""
    curves = {"base": ("RRRR", "RRRR"), "lora": ("HHHH", "HHHH"), "shrink": ("RRRR", "HHRR")}
    stages = {"base": "base", "lora": "fine-tuning", "shrink": "post-hoc"}
    results = [
        MethodResult(
            model=world, method=method, stage=stages[method], seed=0, safety={"hrr": judged(before)},
            model_digest=world, relapse={"benign": Relapse({0: judged(before), 10: judged(after), 40: judged(after)})},
        )
        for world in WORLDS
        for method, (before, after) in curves.items()
    ]  # fmt: skip
    with (tmp_path / "out").open("w") as out:
        report_replicas(results, tmp_path, Console(file=out, width=200))
    table = pd.read_csv(tmp_path / "relapse-worlds.csv").set_index("method")
    assert table["median"].tolist() == ["> 40", "0", "10"]
    assert table.loc["shrink", ["vs_base_later", "vs_base_sooner"]].tolist() == [0, 3]
    assert "| shrink | 10 [10, 10] |" in (tmp_path / "replicas.md").read_text()
    assert "Relapse beside base" in (tmp_path / "out").read_text()
