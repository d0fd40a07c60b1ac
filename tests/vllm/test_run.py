"""The sandbox leaderboard with vLLM is the one with transformers, and nothing is left running behind it."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.harness.store.store import Store
from safebasin.judges.base import Exchange
from safebasin.results.records import Verdict

from ..conftest import guard

ROOT = Path(__file__).resolve().parents[2]
MARK = "SAFEBASIN_TEST_MARK"
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs base and LoRA of the sandbox; a later run takes the checkpoints of an earlier one."""
    folders = tmp_path_factory.mktemp("runs")
    made: dict[str, Path] = {}

    def call(name: str, *overrides: str, **environment: str) -> Path:
        if name in made:
            return made[name]
        folder = folders / name
        for earlier in list(made.values())[:1]:
            shutil.copytree(earlier / "checkpoints", folder / "checkpoints")
        command = [str(Path(sys.executable).with_name("safebasin")), "run", str(ROOT / "configs/sandbox.yaml")]
        command += ["methods=[base, lora]", *overrides, "--output", str(folder)]
        shown = {**os.environ, "PYTHONWARNINGS": "ignore", MARK: str(folder), **environment}
        done = subprocess.run(command, cwd=ROOT, env=shown, capture_output=True, text=True, timeout=guard(900))
        assert done.returncode == 0, done.stdout + done.stderr
        made[name] = folder
        return folder

    return call


def answered(folder: Path) -> dict[str, Any]:
    """Everything in the store of a run, by what was asked, whichever engine answered."""
    with sqlite3.connect(folder / "store.sqlite") as db:
        rows = [
            (kind, json.loads(parts), answer)
            for kind, parts, answer in db.execute("SELECT kind, parts, answer FROM responses")
        ]
    for _, parts, _ in rows:
        for key in ("code", "engine", "vllm"):
            parts.pop(key, None)
    return {json.dumps([kind, parts], sort_keys=True): json.loads(answer) for kind, parts, answer in rows}


def differing(one: dict[str, Any], other: dict[str, Any]) -> int:
    """How many generated responses differ, of those that both have."""
    return sum(isinstance(one[key], str) and one[key] != other[key] for key in one.keys() & other.keys())


def test_the_leaderboard_is_that_of_transformers(run: Run) -> None:
    hf, vllm = run("hf", "engine=hf"), run("vllm", "engine=vllm")
    one, other = answered(hf), answered(vllm)
    assert one.keys() == other.keys()  # the same prompts, token for token, under keys of the same structure
    assert differing(one, other) == 0, f"{differing(one, other)} of {sum(isinstance(a, str) for a in one.values())}"
    boards = [pd.read_csv(folder / "leaderboard.csv").drop(columns=["minutes", "peak_gb"]) for folder in (hf, vllm)]
    pd.testing.assert_frame_equal(*boards, rtol=1e-4)
    assert json.loads((vllm / "manifest.json").read_text())["engine"] == "vllm"


def verdicts(folder: Path) -> tuple[str, dict[Exchange, Verdict]]:
    """The identity of a run's first judge, and what it said of each exchange."""
    with sqlite3.connect(folder / "store.sqlite") as db:
        ((identity,),) = db.execute("SELECT identity FROM judges WHERE position = 0")
        exchanges = [Exchange(*row) for row in db.execute("SELECT DISTINCT prompt, response FROM samples")]
    return identity, Store(folder / "store.sqlite").verdicts(identity, exchanges)


def test_a_guard_judges_with_vllm_as_it_does_with_transformers(run: Run) -> None:
    """After the target, in the same process: its engine must be gone by then."""
    others = "{keywords: {list: qi38}}, {sandbox_oracle: {}}"
    judges = f"judges=[{{llama_guard: {{model: sandbox/guard, engine: vllm}}}}, {others}]"
    (name, one), (other_name, other) = verdicts(run("hf", "engine=hf")), verdicts(run("guard", "engine=vllm", judges))
    assert "vllm" in other_name
    assert "vllm" not in name
    assert one.keys() == other.keys()
    assert len(one) > 1000
    assert [(v.harmful, v.categories, v.raw) for v in other.values()] == [
        (one[exchange].harmful, one[exchange].categories, one[exchange].raw) for exchange in other
    ]
    assert [v.score for v in other.values()] == pytest.approx([one[exchange].score for exchange in other], abs=1e-4)


def test_no_process_is_left(run: Run) -> None:
    assert not living(run("vllm", "engine=vllm"))


def test_an_engine_in_a_process_of_its_own_answers_alike_and_ends(run: Run) -> None:
    """As it is on a GPU."""
    hf = run("hf", "engine=hf")
    apart = run(
        "apart", "engine=vllm", "limit=12", VLLM_ENABLE_V1_MULTIPROCESSING="1", VLLM_CPU_OMP_THREADS_BIND="nobind"
    )
    found = answered(apart)
    assert found
    assert found.keys() <= answered(hf).keys()
    assert differing(found, answered(hf)) == 0
    assert not living(apart)


def living(folder: Path) -> list[str]:
    """The processes that were started for a run and are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has just ended, or is another user's
            continue
    return found
