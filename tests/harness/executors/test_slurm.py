"""A run as jobs: by submitit's local executor, one of whose jobs is killed; what Slurm would be asked for."""

import os
import signal
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.config.model import RunConfig
from safebasin.harness.config.resources import ResourcesConfig, SlurmConfig
from safebasin.harness.executors.slurm import SlurmCluster, job_settings

from ...conftest import guard
from .conftest import answers, arm, ran, table

submitit = pytest.importorskip("submitit")


@pytest.fixture(scope="module")
def small(given: RunConfig) -> RunConfig:
    return given.model_copy(update={"models": given.models[:1], "methods": given.methods[:2]})


def kill_what_waits(tasks: Path) -> None:
    end = time.monotonic() + guard()
    while not (waits := sorted(tasks.glob("waits-*"))) and time.monotonic() < end:
        time.sleep(0.02)
    if waits:
        os.kill(int(waits[0].name.removeprefix("waits-")), signal.SIGKILL)
    (tasks / "open").touch()


def test_a_job_that_is_killed_changes_nothing(small: RunConfig, place: Path) -> None:
    assert ran(small, place / "small")[0].failures == {}
    tasks = place / "tasks"
    arm(tasks)
    killer = Thread(target=kill_what_waits, args=(tasks,))
    killer.start()
    try:
        result, said = ran(small, place / "slurm", executor="slurm", slurm={"cluster": "local"})
    finally:
        (tasks / "armed").unlink()
        killer.join(guard())
    assert result.failures == {}, said
    assert "it goes on with another worker" in said
    pd.testing.assert_frame_equal(table(place / "slurm"), table(place / "small"))
    assert answers(place / "slurm") == answers(place / "small")


def test_the_debug_executor_takes_this_process(given: RunConfig, local: Path, tmp_path: Path) -> None:
    result, said = ran(given, tmp_path / "run", executor="slurm", slurm={"cluster": "debug"})
    assert result.failures == {}, said
    pd.testing.assert_frame_equal(table(tmp_path / "run"), table(local))
    assert answers(tmp_path / "run") == answers(local)


def test_what_slurm_is_asked_for(tmp_path: Path) -> None:
    settings = job_settings(
        ResourcesConfig(cpus=16, gpus=8, memory=512),
        SlurmConfig(partition="gpu", account="us", hours=1.5, setup=("module load cuda",), additional={"qos": "high"}),
    )
    from submitit.slurm.slurm import _make_sbatch_string

    renamed = {"timeout_min": "time", "tasks_per_node": "ntasks_per_node"}
    plain: dict[str, Any] = {renamed.get(name, name.removeprefix("slurm_")): value for name, value in settings.items()}
    plain["mem"] = f"{plain.pop('mem_gb'):g}GB"
    script = _make_sbatch_string("python work.py", tmp_path, **plain)
    for line in (
        "#SBATCH --cpus-per-task=16", "#SBATCH --gpus-per-node=8", "#SBATCH --mem=512GB", "#SBATCH --time=90",
        "#SBATCH --partition=gpu", "#SBATCH --account=us", "#SBATCH --qos=high", "module load cuda",
    ):  # fmt: skip
        assert line in script.splitlines(), script


def test_without_slurm_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"executor: slurm cannot be had here: .*slurm\.cluster=slurm"):
        SlurmCluster(ResourcesConfig(), SlurmConfig(), tmp_path, "run")
