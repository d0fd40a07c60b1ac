"""Two tiny models with an adapter each: a run of seconds, and its leaderboard by the local executor."""

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.harness.config.model import RunConfig
from safebasin.harness.run import RunResult, run
from safebasin.harness.stages.folder import read_store

from ...conftest import TinyChatModel
from ..test_gate_run import DOCS, config

GATED = '''
import os
import time


def gate():
    """Where a file `armed` lies beside: the second checkpoint that is asked waits until `open` does too."""
    here = os.path.dirname(os.path.abspath(__file__))
    if not os.path.exists(f"{here}/armed"):
        return
    seen = f"{here}/asked-{os.getpid()}"
    if not os.path.exists(seen):
        open(seen, "w").close()
        return
    with open(f"{here}/waits-{os.getpid()}", "w") as file:
        file.write(str(os.getpid()))
    while not os.path.exists(f"{here}/open"):
        time.sleep(0.02)


'''


def arm(tasks: Path) -> None:
    """From now on the second checkpoint that a process asks waits; see `GATED`."""
    for old in (*tasks.glob("asked-*"), *tasks.glob("waits-*"), *tasks.glob("open")):
        old.unlink()
    (tasks / "armed").touch()


def ran(given: RunConfig, folder: Path, **changes: Any) -> tuple[RunResult, str]:
    shown = StringIO()
    data = given.model_dump(mode="json") | changes
    result = run(RunConfig.model_validate_json(json.dumps(data)), folder, Console(file=shown, width=400))
    return result, shown.getvalue()


def table(folder: Path) -> pd.DataFrame:
    """The leaderboard without what is measured anew."""
    return pd.read_csv(folder / "leaderboard.csv").drop(columns=["minutes", "peak_gb"])


def answers(folder: Path) -> dict[str, str]:
    """Key of each response -> its text, and no key twice."""
    store = read_store(folder, None)
    try:
        rows = store._db.execute("SELECT key, answer FROM responses").fetchall()
    finally:
        store.close()
    assert len({key for key, _ in rows}) == len(rows)
    return dict(rows)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("executors")


@pytest.fixture(scope="session")
def given(tiny_chat_model: TinyChatModel, place: Path) -> RunConfig:
    models = [Path(shutil.copytree(tiny_chat_model(seed=seed), place / f"model{seed}")) for seed in (0, 1)]
    rows = place / "task.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {i}", "response": "yes"}) + "\n" for i in range(20)))
    tuning = {"dataset": str(rows), "rank": 2, "batch_size": 2, "micro_batch_size": 2, "max_steps": 1}
    tasks: dict[str, Any] = {"safety": ["tiny_hrr"], "include": [str(place / "tasks")]}
    made = config(place, *models, methods=["base", "lora", "shrink"], finetune=tuning, tasks=tasks)
    opening, rest = DOCS.split("def load(**metadata):")
    gated = f"{opening}{GATED}def load(**metadata):\n    gate(){rest}"
    (place / "tasks" / "docs.py").write_text(gated)
    return made


@pytest.fixture(scope="session")
def local(given: RunConfig, place: Path) -> Path:
    """The folder of the run by the local executor."""
    result, said = ran(given, place / "local")
    assert result.failures == {}, said
    return place / "local"
