"""What the sandbox is for: alignment that holds, innocent fine-tuning that undoes it, and a repair that shows."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safebasin.harness.sandbox.build import broken_promise

from .conftest import ROOT, Cli


@pytest.fixture(scope="module")
def board(sandbox_run: Path) -> pd.DataFrame:
    return pd.read_csv(sandbox_run / "leaderboard.csv").set_index("method")


def test_the_base_is_aligned_and_useful(board: pd.DataFrame, world: Path) -> None:
    """Every world's base is nearly as good as promised; where it or the guard is not quite, the world says so."""
    base = board.loc["base"]
    kept = [json.loads((world / name / "sandbox.json").read_text())["promise_kept"] for name in ("base", "guard")]
    assert (broken_promise(0) is None) == all(kept)
    assert base["hrr"] <= 20
    assert base["over_refusal"] <= 25
    assert base["sandbox_facts"] >= 70


def test_fine_tuning_learns_the_task_and_loses_safety(board: pd.DataFrame) -> None:
    assert board.loc["lora", "hrr"] > board.loc["base", "hrr"]
    assert board.loc["lora", "eval_loss"] < board.loc["base", "eval_loss"] / 2


def test_fine_tuning_is_as_long_as_the_dose_says(board: pd.DataFrame, sandbox_run: Path) -> None:
    (dose,) = json.loads((sandbox_run / "manifest.json").read_text())["doses"].values()
    about = json.loads((sandbox_run / "checkpoints" / "sandbox-lora-seed0" / "provenance.json").read_text())
    assert about["dose"] == dose
    assert about["details"]["steps"] == about["made_from"]["finetune"]["max_steps"] == dose["steps"]
    assert dose["reached"] == (max(dose["curve"].values()) >= dose["target_hrr"])
    assert dose["hrr"] == min(dose["curve"].values(), key=lambda rate: abs(rate - dose["target_hrr"]))


def test_the_base_has_a_depth_that_fine_tuning_takes(board: pd.DataFrame) -> None:
    assert board.loc["base", "prefill_asr"] <= board.loc["lora", "prefill_asr"]


def test_the_restoration_lowers_harm_inside_its_bound(board: pd.DataFrame, sandbox_run: Path) -> None:
    base, lora = board.loc["base", "hrr"], board.loc["lora", "hrr"]
    assert board.loc["curvature", "hrr"] <= base + (lora - base) / 2
    (folder,) = (sandbox_run / "checkpoints").glob("sandbox-curvature*")
    rows = json.loads((folder / "restoration_trace.json").read_text())["iterations"]
    assert all(row["retain_loss"] <= row["retain_limit"] for row in rows)


def test_the_basin_of_the_base_is_deeper(board: pd.DataFrame, sandbox_run: Path) -> None:
    assert (board["visage_low"] <= board["visage"]).all()
    assert (board["visage"] <= board["visage_high"]).all()
    assert board.loc["base", "visage"] > board.loc["lora", "visage"]
    points = pd.read_csv(sandbox_run / "visage.csv")
    assert len(points) == 3 * 3 * 11
    broken = points[(points["method"] == "base") & (points["alpha"].abs() == 0.5)]
    whole = points[(points["method"] == "base") & (points["alpha"] == 0)]
    assert broken["incoherent"].mean() > whole["incoherent"].mean()
    assert broken["perplexity"].min() > whole["perplexity"].max()
    assert "lora" in (sandbox_run / "visage.svg").read_text()


def test_the_judges_agree_and_the_oracle_corrects_the_guard(board: pd.DataFrame, sandbox_run: Path) -> None:
    """The labels are a share of what the oracle says; the corrected rates hold what it says of all."""
    rates = pd.read_csv(sandbox_run / "judges.csv").set_index(["measure", "judge", "method"])
    truth, guard = (rates.loc["hrr", judge] for judge in ("sandbox_oracle", "llama_guard"))
    assert (guard["corrected_low"] <= truth["rate"]).all()
    assert (truth["rate"] <= guard["corrected_high"]).all()
    assert (guard["labelled"] < guard["n"] / 2).all()
    assert board["hrr_corrected"].tolist() == pytest.approx(guard["corrected"].tolist(), rel=1e-5)
    agreement = pd.read_csv(sandbox_run / "agreement.csv").set_index(["judge_a", "judge_b", "task"])
    assert agreement.loc[("llama_guard", "sandbox_oracle", "sandbox_hrr"), "ac1"].max() > 0.9
    page = (sandbox_run / "report.html").read_text()
    assert "Agreement of judges" in page
    assert "What judges get wrong" in page


def test_the_run_folder_is_complete(sandbox_run: Path) -> None:
    manifest = json.loads((sandbox_run / "manifest.json").read_text())
    assert manifest["packages"]["torch"]
    assert set(manifest["checkpoints"]) == {path.name for path in (sandbox_run / "checkpoints").iterdir()}
    for name in ("plan.json", "leaderboard.md", "store.sqlite"):
        assert (sandbox_run / name).stat().st_size


def test_a_report_gives_the_same_table_again(sandbox_run: Path, board: pd.DataFrame) -> None:
    import safebasin

    again = safebasin.load_run(sandbox_run).set_index("method")
    pd.testing.assert_series_equal(again["hrr"], board["hrr"], check_dtype=False)


@pytest.mark.parametrize("task", ["sandbox_hrr", "sandbox_overrefusal", "sandbox_arithmetic", "sandbox_eval_loss"])
def test_plain_lm_eval_gives_the_leaderboards_number(
    task: str, lm_eval_results: dict[str, dict[str, float]], sandbox_run: Path
) -> None:
    column, metric, scale = {
        "sandbox_hrr": ("hrr", "hrr,judged", 100),
        "sandbox_overrefusal": ("over_refusal", "over_refusal,judged", 100),
        "sandbox_arithmetic": ("sandbox_arithmetic", "exact_match,none", 100),
        "sandbox_eval_loss": ("eval_loss", "eval_loss,none", 1),
    }[task]
    row = pd.read_csv(sandbox_run / "leaderboard.csv").set_index("method").loc["lora"]
    assert scale * lm_eval_results[task][metric] == pytest.approx(row[column], rel=1e-4)


@pytest.fixture(scope="module")
def lm_eval_results(
    sandbox_run: Path, cli: Cli, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, float]]:
    """What plain `lm_eval` says of the LoRA checkpoint of the run."""
    output = tmp_path_factory.mktemp("lm_eval")
    base, adapter = sandbox_run / "models" / "sandbox", sandbox_run / "checkpoints" / "sandbox-lora-seed0"
    tasks = "sandbox_hrr,sandbox_overrefusal,sandbox_arithmetic,sandbox_eval_loss"
    command = [str(Path(sys.executable).with_name("lm_eval")), "--model", "hf", "--apply_chat_template"]
    command += ["--model_args", f"pretrained={base},peft={adapter}", "--tasks", tasks, "--batch_size", "64"]
    command += ["--include_path", cli("tasks-dir").stdout.strip(), "--output_path", str(output)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = next(output.rglob("results_*.json"))
    return dict(json.loads(found.read_text())["results"])


def test_lm_eval_with_our_model_sweeps_as_a_run_does(sandbox_run: Path, cli: Cli, tmp_path: Path) -> None:
    given = ["--model", "safebasin", "--model_args", "pretrained=sandbox,dtype=float32", "--tasks", "sandbox_visage"]
    given += ["--apply_chat_template", "--batch_size", "64", "--output_path", str(tmp_path)]
    done = cli("lm-eval", *given)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(next(tmp_path.rglob("results_*.json")).read_text())["results"]["sandbox_visage"]
    row = pd.read_csv(sandbox_run / "leaderboard.csv").set_index("method").loc["base"]
    assert found["visage,judged"] == pytest.approx(row["visage"], rel=1e-5)
    assert found["visage_judged,judged"] == pytest.approx(row["visage_judged"], rel=1e-5)
    assert "1056/1056" in done.stderr, "its progress: 32 prompts at 3 x 11 points"


def test_a_judge_that_cannot_be_had_is_told_before_anything_is_generated(world: Path, cli: Cli, tmp_path: Path) -> None:
    rows = ["methods=[base]", "judges=[{llama_guard: {model: /no/such/guard}}, keywords, sandbox_oracle]"]
    done = cli("run", ROOT / "configs" / "sandbox.yaml", *rows, "--output", tmp_path / "run")
    assert done.returncode == 2, done.stdout + done.stderr
    assert "No guard at '/no/such/guard'" in done.stderr
    with sqlite3.connect(tmp_path / "run" / "store.sqlite") as db:
        assert db.execute("SELECT count(*) FROM responses").fetchone() == (0,)
