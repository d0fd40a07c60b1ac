"""`geometry trajectory` on a tiny pair: what is written, what holds of it, and that the adapter is left alone."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.stages.geometry_restoring import Given
from safebasin.harness.stages.trajectories import Drawn, trajectory
from safebasin.harness.terminal.progress import Bars

from .test_influencing import FREE

SMALL = Drawn(step_sizes=(0.01, 0.1), steps=3, points=4)


def test_every_figure_has_both_paths_and_a_grid(
    given: Given,
    shown: Bars,
    tmp_path: Path,
) -> None:
    assert given.tuned
    before, out = (given.tuned / "adapter_model.safetensors").read_bytes(), tmp_path / "out"
    trajectory(given, SMALL, FREE, out, shown)
    assert (given.tuned / "adapter_model.safetensors").read_bytes() == before
    names = {"paths.csv", "grid.csv", "planes.csv", "manifest.json", "trajectory.html"}
    assert {path.name for path in out.iterdir()} == names
    paths, grid, planes = (pd.read_csv(out / name) for name in ("paths.csv", "grid.csv", "planes.csv"))
    assert [*zip(planes["preset"], planes["step_size"], strict=True)] == [
        (preset, size) for preset in ("default", "paper") for size in (0.01, 0.1)
    ]
    assert len(grid) == 4 * 4**2
    assert planes["length"].iloc[1] == pytest.approx(10 * planes["length"].iloc[0], rel=1e-4)
    for (preset, size), own in paths.groupby(["preset", "step_size"]):
        plane = planes[(planes["preset"] == preset) & (planes["step_size"] == size)].iloc[0]
        starts = own[own["step"] == 0]
        assert starts["path"].tolist() == ["first-order", "curvature-aware"]
        assert starts[["a", "b", "off", "objective"]].nunique().tolist() == [1, 1, 1, 1]
        assert own["objective"].to_numpy() == pytest.approx(
            (own["harmful"] + plane["weight"] * own["retain"]).to_numpy(), rel=1e-3, abs=1e-3
        )
        first = own[own["path"] == "first-order"]
        moved = np.hypot(np.diff(first["a"]), np.diff(first["b"]))
        assert len(first) == 4
        assert (moved <= plane["length"] * 1.001).all(), "a projection is no longer than the step"
        assert 0.5 < plane["explained_1"] + plane["explained_2"] <= 1.000001
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["settings"]["restoration"]["paper"]["estimator"] == "lbfgs"
    assert set(manifest["models"]) == {"base", "tuned"}


def test_what_draws_no_figure_is_refused() -> None:
    with pytest.raises(InputError, match="--steps 1"):
        Drawn(steps=1)
    with pytest.raises(InputError, match=r"--step-sizes 0\.1 0"):
        Drawn(step_sizes=(0.1, 0))


def test_the_command_prints_where_paths_lead(
    given: Given,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["geometry", "trajectory", "--base", given.base, "--tuned", str(given.tuned), "--device", "cpu"]
    command += [part for name, source in given.data.items() for part in ("--data", f"{name}={source}")]
    command += [part for name, value in FREE.items() for part in ("--set", f"{name}={value}")]
    command += ["--preset", "paper", "--step-sizes", "0.02", "0.1", "--steps", "2", "--points", "3"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--output", str(tmp_path / "o")])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert said.count("first-order") == said.count("curvature-aware") == 2
    assert "default" not in said
    assert "trajectory.html" in said
