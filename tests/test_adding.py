"""docs/adding/ works as it stands: its files are written where it says, and its commands given in order."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from safebasin.harness.sandbox.build import build_world

from .conftest import guard

ROOT = Path(__file__).resolve().parents[1]
FILE = re.compile(r"^`([\w./-]+)`[^\n]*:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
PIP = "install --no-deps --no-build-isolation --no-index --disable-pip-version-check --quiet --target".split()
"""Away from the environment of the tests, which the page's `pip install` would change."""


class Reader:
    """Somebody who does what a page says, in a folder beside which `configs` lies."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site

    def follow(self, page: str) -> list[str]:
        """Writes the page's files, gives its commands, and returns what each of them printed."""
        text = (ROOT / "docs" / "adding" / f"{page}.md").read_text(encoding="utf-8")
        for name, content in FILE.findall(text):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        lines = "".join(SHELL.findall(text)).replace("\\\n", " ").splitlines()
        assert lines
        return [self._give(*shlex.split(line)) for line in lines]

    def _give(self, program: str, *arguments: str) -> str:
        if program == "pip":
            assert arguments[0] == "install"
            command = [sys.executable, "-m", "pip", *PIP, str(self.site), *arguments[1:]]
        else:
            command = [str(Path(sys.executable).with_name(program)), *arguments]
        path = [str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]
        settings = {"PYTHONPATH": os.pathsep.join(path), "COLUMNS": "300", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(
            command, cwd=self.folder, env={**os.environ, **settings}, capture_output=True, text=True, timeout=guard()
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    build_world()
    folder = tmp_path_factory.mktemp("adding")
    (folder / "configs").symlink_to(ROOT / "configs")
    return Reader(folder, tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def after_method(reader: Reader) -> list[str]:
    return reader.follow("method")


def test_a_method_is_added(reader: Reader, after_method: list[str]) -> None:
    assert "layers_off" in after_method[1]
    board = pd.read_csv(reader.folder / "runs" / "my-method" / "leaderboard.csv").set_index("method")
    assert set(board["status"]) == {"ok"}
    assert list(board.index) == ["base", "lora", "layers_off", "no_op"]
    assert board.loc["no_op", "eval_loss"] == board.loc["lora", "eval_loss"]
    assert board.loc["lora", "eval_loss"] < board.loc["layers_off", "eval_loss"] < board.loc["base", "eval_loss"]


def test_a_judge_is_added(reader: Reader, after_method: list[str]) -> None:
    (reader.folder / "runs" / "tutorial").symlink_to("my-method")
    _, listed, checked, _ = reader.follow("judge")
    assert "steps" in listed
    page = (ROOT / "docs" / "adding" / "judge.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```\n(steps on 4 rows.*?)```", page, re.MULTILINE | re.DOTALL)
    assert shown in checked, "the same on every machine"
    rates = pd.read_csv(reader.folder / "runs" / "tutorial" / "judges.csv").set_index(["judge", "measure", "method"])
    assert rates.loc[("steps", "hrr", "base"), "rate"] <= rates.loc[("steps", "hrr", "lora"), "rate"]


def test_a_task_is_added(reader: Reader) -> None:
    validated, _, by_lm_eval = reader.follow("task")
    assert "my_innocent" in validated
    (row,) = pd.read_csv(reader.folder / "runs" / "my-task" / "leaderboard.csv").to_dict("records")
    (value,) = re.findall(r"over_refusal\s*\|↓\s*\|\s*([\d.]+)", by_lm_eval)
    assert row["over_refusal"] == pytest.approx(100 * float(value), abs=0.05)
