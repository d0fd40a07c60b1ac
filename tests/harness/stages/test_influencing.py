"""`geometry influence` on a tiny pair: what is written, whose rows are whose, and what cannot be looked at."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.stages.geometry_restoring import Given
from safebasin.harness.stages.influencing import influence
from safebasin.harness.terminal.progress import Bars
from safebasin.restore.models.loading import load_base

FREE = {"epsilon": 5.0, "max_new_tokens": 4, "pairs": 4, "batch_size": 2, "forget_size": 4}


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_both_rankings_are_written_with_the_prompts_of_their_rows(
    given: Given, preset: str, shown: Bars, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = influence(given, preset, FREE, out, shown)
    assert {path.name for path in out.iterdir()} == {"examples.csv", "costs.csv", "manifest.json", "influence.html"}
    examples, costs = pd.read_csv(out / "examples.csv"), pd.read_csv(out / "costs.csv")
    assert examples["share"].sum() == pytest.approx(1, abs=1e-3)
    assert examples["rank"].tolist() == list(range(1, len(examples) + 1))
    assert set(examples["set"]) == ({"forget", "retain"} if preset == "default" else {"forget"})
    for row in examples.to_dict("records"):
        assert row["prompt"].startswith("harm" if row["set"] == "forget" else "say")
    forget = examples[examples["set"] == "forget"]
    assert sorted(forget["row"]) == [0, 1, 2, 3]
    assert forget["prompt"].nunique() == 4
    assert len(costs) == 4
    assert costs["cost"].tolist() == pytest.approx((costs["after"] - costs["before"]).tolist(), abs=1e-3)
    assert found.costs["prompt"].str.startswith("say").all()
    manifest = json.loads((out / "manifest.json").read_text())
    assert set(manifest["models"]) == {"base", "tuned"}
    assert manifest["data"]["forget"]["rows"] == 4
    assert manifest["settings"]["restoration"]["estimator"] == ("gauss_newton" if preset == "default" else "lbfgs")
    assert manifest["update"]["retain_loss"] <= manifest["update"]["retain_loss_before"] + 5


def test_a_file_s_adapter_is_not_touched_and_two_looks_agree(given: Given, shown: Bars, tmp_path: Path) -> None:
    assert given.tuned
    before = (given.tuned / "adapter_model.safetensors").read_bytes()
    found = [influence(given, "paper", FREE, tmp_path / name, shown) for name in ("one", "two")]
    assert (given.tuned / "adapter_model.safetensors").read_bytes() == before
    pd.testing.assert_frame_equal(found[0].examples, found[1].examples)
    pd.testing.assert_frame_equal(found[0].costs, found[1].costs)


def test_what_cannot_be_looked_at_is_said(given: Given, shown: Bars, tmp_path: Path) -> None:
    from dataclasses import replace

    def tried(**changes: Any) -> None:
        influence(replace(given, **changes), "default", FREE, tmp_path / "out", shown)

    with pytest.raises(InputError, match="a restoration has harmful and task"):
        tried(data={"harmful": given.data["harmful"]})
    with pytest.raises(InputError, match="--data is missing"):
        tried(data={})
    with pytest.raises(InputError, match="no such setting"):
        influence(given, "default", {"epsilo": 1}, tmp_path / "out", shown)
    with pytest.raises(InputError, match="no preset"):
        influence(given, "papers", {}, tmp_path / "out", shown)
    torch.manual_seed(0)
    load_base(given.base, device="cpu").save_pretrained(tmp_path / "whole")
    with pytest.raises(InputError, match="is a whole model"):
        tried(tuned=tmp_path / "whole")


def test_the_command_prints_rankings_without_prompts(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["geometry", "influence", "--base", given.base, "--tuned", str(given.tuned), "--device", "cpu"]
    command += [part for name, source in given.data.items() for part in ("--data", f"{name}={source}")]
    command += [part for name, value in FREE.items() for part in ("--set", f"{name}={value}")]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--preset", "paper", "--output", str(tmp_path / "o")])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "make half of the update" in said
    assert "influence.html" in said
    assert "harm x" not in said
