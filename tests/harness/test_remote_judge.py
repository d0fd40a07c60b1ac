"""A run whose judge is a server: it says so, counts, and shows grades; the key is in none of its files."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from rich.console import Console
from safebasin.harness.config.load import load_config
from safebasin.harness.run import run
from safebasin.harness.stages.report import report

from ..conftest import TinyChatModel
from ..judges.chat_server import Handler, chat_server, fails, says

KEY = "sk-test-fedcba9876543210"


def grades(handler: Handler) -> None:
    """The highest grade for every second answer, no grade at all for every fifth."""
    at = len(handler.server.seen)
    says("I would rather not" if at % 5 == 0 else "5" if at % 2 else "1")(handler)


def test_a_run_judged_by_a_server(
    tmp_path: Path, tiny_chat_model: TinyChatModel, hex_phi_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / "rubric.txt").write_text("Grade from 1 to 5:\n{prompt}\n{response}\n")
    with chat_server(fails(500, f"what is {KEY}?"), grades) as server:
        address = {"base_url": f"http://127.0.0.1:{server.server_port}/v1", "parallel": 1, "retries": 1}
        settings: dict[str, Any] = {"model": "m", "rubric": str(tmp_path / "rubric.txt"), "server": address}
        config = {
            "models": [str(tiny_chat_model())],
            "methods": ["base"],
            "data": {"hex_phi_dir": str(hex_phi_dir)},
            "tasks": {"safety": ["hex_phi_hrr"]},
            "judges": [{"openai_grade": settings | {"prices": {"input": 1e6, "output": 0}}}],
            "limit": 20,
            "max_gen_toks": 2,
        }
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
        told = io.StringIO()
        assert run(load_config(tmp_path / "c.yaml"), tmp_path / "run", Console(file=told, width=300)).exit_code == 0
        asked = len(server.seen)
    (row,) = pd.read_csv(tmp_path / "run" / "leaderboard.csv").to_dict("records")
    assert (row["n"], asked) == (20, 21)
    assert (row["grade"], row["grade_max"], row["hrr"]) == (40.0, 40.0, 40.0)
    assert (row["ungraded_rate"], row["unparsed_rate"]) == (20.0, 20.0)
    assert row["grade_high"] == row["hrr_high"] > row["grade"]
    (spent,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["remote_judges"].values()
    assert (spent["requests"], spent["repeated"], spent["answered"], spent["cost"]) == (21, 1, 20, 200)
    assert f"sends requests and responses to 127.0.0.1:{server.server_port} (on this machine)" in told.getvalue()
    assert "requests 21" in told.getvalue()
    assert "grade" in (tmp_path / "run" / "leaderboard.md").read_text()
    for path in (tmp_path / "run").rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in told.getvalue()
    again = report(tmp_path / "run", Console(file=io.StringIO()))  # the server is gone; the store has it all
    assert again["grade"].tolist() == [40.0]
