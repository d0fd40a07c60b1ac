import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import guard

ROOT = Path(__file__).resolve().parents[2]
SAFEBASIN = Path(sys.executable).with_name("safebasin")
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Offline, and as wide as a table needs."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "COLUMNS": "140",
        "PYTHONWARNINGS": "ignore",
    }


@pytest.fixture(scope="session")
def cli(environment: dict[str, str]) -> Cli:
    """Runs the installed command line in a process of its own."""

    def call(
        *arguments: str | Path, cwd: Path = ROOT, timeout: float | None = None
    ) -> "subprocess.CompletedProcess[str]":
        command = [str(SAFEBASIN), *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout or guard()
        )

    return call


@pytest.fixture(scope="session")
def world() -> Path:
    """The sandbox world, trained if it is not in the cache yet."""
    from safebasin.harness.sandbox.build import build_world

    return build_world()


@pytest.fixture(scope="session")
def sandbox_run(world: Path, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of configs/sandbox.yaml, with three of its rows."""
    folder = tmp_path_factory.mktemp("runs") / "sandbox"
    rows = "methods=[base, lora, {curvature: {epsilon: 0.01}}]"
    done = cli("run", ROOT / "configs" / "sandbox.yaml", rows, "--output", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
