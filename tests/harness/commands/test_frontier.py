"""`safebasin restore --frontier`: what it evaluates, and its errors; and one whole frontier on the sandbox."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.frontier import frontier_config, read_epsilons
from safebasin.tasks.sandbox.world import rows

from ..conftest import Cli


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("rows")
    harmful = write(folder / "forget.jsonl", [*rows("forget"), *rows("curvature_forget")])
    return harmful, write(folder / "retain.jsonl", [*rows("retain_1"), *rows("retain_2"), *rows("retain_check")])


def test_epsilons() -> None:
    assert read_epsilons("0.003,0.01") == [0.003, 0.01]
    with pytest.raises(InputError, match=r"'0\.1;0\.2' is no list of numbers"):
        read_epsilons("0.1;0.2")


def test_other_models_need_to_be_told_what_to_evaluate(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--config"):
        frontier_config("some/model", tmp_path, *files, [0.1], {}, None, 0)


def test_all_that_is_wrong_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        frontier_config("sandbox", tmp_path, *files, [0.1], {"iteration": 3}, None, 0)
    assert f"'{tmp_path}' is no PEFT adapter folder" in str(caught.value)
    assert "Did you mean 'iterations'" in str(caught.value)


def test_a_frontier_of_one_adapter(sandbox_run: Path, files: tuple[Path, Path], cli: Cli, tmp_path: Path) -> None:
    adapter = sandbox_run / "checkpoints" / "sandbox-lora-seed0"
    given = ["--base", "sandbox", "--adapter", adapter, "--forget", files[0], "--retain", files[1]]
    settings = ["--set", "micro_batch_size=64"]
    out = tmp_path / "frontier"
    done = cli("restore", *given, *settings, "--frontier", "0.003,0.03", "--output", out)
    assert done.returncode == 0, done.stdout + done.stderr
    table = pd.read_csv(out / "frontier.csv")
    curvature = table[table["method"] == "curvature"].sort_values("epsilon")
    tuned = table[table["method"] == "lora"].iloc[0]
    assert curvature["epsilon"].tolist() == [0.003, 0.03]
    assert (curvature["hrr"] < tuned["hrr"] / 2).all()
    assert (curvature["eval_loss"] < tuned["eval_loss"] + 0.03).all()
    assert {"shrink", "interpolate"} <= set(table["method"])
    assert (out / "frontier.svg").exists()
    assert (out / "frontier-at-equal-loss.csv").exists()
