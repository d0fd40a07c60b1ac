"""Every number of the leaderboard can be had from plain lm_eval."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from .conftest import ROOT, Cli


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
