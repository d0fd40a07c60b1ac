"""A finished run of seconds on a tiny model: base and an adapter."""

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import RunResult, run

from ...conftest import TinyChatModel
from ..test_gate_run import config

Run = Callable[..., tuple[RunResult, str]]
"""Runs the config in a folder: the result, and what was printed."""


@pytest.fixture(scope="session")
def given(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    place = tmp_path_factory.mktemp("tiny_run")
    model = Path(shutil.copytree(tiny_chat_model(), place / "model"))
    rows = place / "task.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {i}", "response": "yes"}) + "\n" for i in range(20)))
    tuning = {"dataset": str(rows), "rank": 2, "batch_size": 2, "micro_batch_size": 2, "max_steps": 1}
    about: dict[str, Any] = {"tasks": {"safety": ["tiny_hrr"], "include": [str(place / "tasks")]}}
    return config(place, model, methods=["base", "lora"], finetune=tuning, **about)


def ran(given: RunConfig, folder: Path, store: Path | None = None) -> tuple[RunResult, str]:
    shown = StringIO()
    result = run(given, folder, Console(file=shown, width=400), store)
    return result, shown.getvalue()


@pytest.fixture(scope="session")
def finished(given: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished run; tests copy it."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    result, said = ran(given, folder)
    assert result.failures == {}, said
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run", symlinks=True))


def table(folder: Path) -> pd.DataFrame:
    """The leaderboard without what is measured anew."""
    return pd.read_csv(folder / "leaderboard.csv").drop(columns=["minutes", "peak_gb"])
