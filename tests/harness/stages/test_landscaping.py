"""`geometry landscape` on a tiny pair: what is written, and that it goes on where it was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.harness.stages import landscaping
from safebasin.harness.stages.journal import Journal
from safebasin.harness.stages.landscaping import JOURNAL, LandscapeSettings, landscape
from safebasin.harness.terminal.console import safe_console
from safebasin.harness.terminal.progress import Bars, bars
from safebasin.restore.geometry.structure import percentiles, structure

from ...conftest import TinyChatModel, guard
from .conftest import adapter

POINTS = 4
KILLED = """
import os, signal, sys
from pathlib import Path
from safebasin.harness.stages.journal import Journal
from safebasin.harness.commands.cli import main

keep = Journal.keep

def keep_and_die(self, name, value):
    keep(self, name, value)
    if len(self.done) == 7:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.keep = keep_and_die
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def given(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny pair and rows of a task."""
    base, folder = tiny_chat_model(), tmp_path_factory.mktemp("pair")
    task = folder / "task.jsonl"
    rows = [{"prompt": f"say {'y' * i}", "response": f"yes {i}"} for i in range(9)]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "base": str(base), "tuned": adapter(base, folder / "tuned", 1), "restored": None, "data": {"task": str(task)},
        "columns": {}, "rows": 3, "points": POINTS, "reach": 0.05, "max_new_tokens": 4, "device": "cpu",
    }  # fmt: skip


def arguments(given: dict[str, Any], output: Path) -> list[str]:
    named = {
        "base": given["base"],
        "tuned": given["tuned"],
        "rows": 3,
        "points": POINTS,
        "reach": 0.05,
        "device": "cpu",
    }
    named |= {"max-new-tokens": 4, "data": f"task={given['data']['task']}", "output": output}
    return ["geometry", "landscape", *(str(word) for name, value in named.items() for word in (f"--{name}", value))]


@pytest.fixture(scope="module")
def whole(given: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a landscape that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with bars(safe_console(quiet=True)) as made:
        landscape(LandscapeSettings(**given), folder, made)
    return folder


def test_everything_is_written_and_the_directions_are_gone(whole: Path) -> None:
    written = {path.name for path in whole.iterdir()} - {".lock"}
    assert written == {
        "grid.csv", "sections.csv", "structure.csv", "percentiles.csv", "manifest.json", "landscape.html", JOURNAL
    }  # fmt: skip
    grid = pd.read_csv(whole / "grid.csv")
    assert len(grid) == 2 * 2 * POINTS**2  # models, draws, points
    assert sorted(set(grid["a"])) == pytest.approx([-0.05, -0.05 / 3, 0.05 / 3, 0.05], rel=1e-4)
    sections = pd.read_csv(whole / "sections.csv")
    assert len(sections) == 2 * 2 * 2 * (POINTS + 1)
    through = sections[(sections["a"] == 0) & (sections["b"] == 0)].groupby(["model", "draw"])["loss"]
    assert (through.count() == 2).all(), "both sections go through the origin"
    assert (through.nunique() == 1).all()


def test_tables_are_those_of_the_grid(whole: Path) -> None:
    grid = pd.read_csv(whole / "grid.csv")

    def surface(model: str, draw: int) -> np.ndarray:
        own = grid[(grid["model"] == model) & (grid["draw"] == draw)]
        return own.pivot(index="a", columns="b", values="loss").to_numpy()

    table = pd.read_csv(whole / "percentiles.csv").set_index("percentile")
    known = percentiles(surface("base", 1), surface("tuned", 1))
    assert table.loc["50th", "raw"] == pytest.approx(known["50th"][0], abs=2e-5)
    assert table.loc["std", "absolute"] == pytest.approx(known["std"][1], abs=2e-5)
    found = pd.read_csv(whole / "structure.csv")
    assert found["compared"].tolist() == [
        "base, two draws of rows", "base and tuned", "base and tuned", "tuned, two draws of rows",
        "base, two pairs of directions",
    ]  # fmt: skip
    assert found["kind"].tolist() == ["rows", "models", "models", "rows", "directions"]
    assert found["draw"].tolist() == [0, 1, 2, 0, 1]
    for row, pair in ((0, (("base", 1), ("base", 2))), (2, (("base", 2), ("tuned", 2)))):
        assert found["r"][row] == pytest.approx(structure(surface(*pair[0]), surface(*pair[1])).r, abs=1e-3)
        assert found["signed"][row] == pytest.approx(100 * (1 - found["r"][row]), abs=0.01)


def test_a_killed_landscape_goes_on_with_the_same_numbers(
    given: dict[str, Any], whole: Path, tmp_path: Path, shown: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, *arguments(given, out)]
    done = subprocess.run(command, capture_output=True, timeout=guard())
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (out / "grid.csv").exists()
    lines = (out / JOURNAL).read_text().splitlines()
    assert len(lines) == 7
    (out / JOURNAL).write_text("\n".join([*lines, lines[0][:40]]))  # as if it had died while writing
    taken: list[str] = []
    keep = Journal.keep
    monkeypatch.setattr(Journal, "keep", lambda self, name, value: (taken.append(name), keep(self, name, value)))
    landscape(LandscapeSettings(**given), out, shown)
    assert len(taken) == 3 * (POINTS + 2) - 7
    for name in ("grid.csv", "sections.csv", "structure.csv", "percentiles.csv"):
        assert (out / name).read_text() == (whole / name).read_text()
    taken.clear()
    landscape(LandscapeSettings(**given), out, shown)
    assert taken == [], "what is done is not done again"


def test_other_settings_take_nothing_from_the_journal(
    given: dict[str, Any], whole: Path, tmp_path: Path, shown: Bars, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / JOURNAL).write_bytes((whole / JOURNAL).read_bytes())
    taken: list[str] = []
    keep = Journal.keep
    monkeypatch.setattr(Journal, "keep", lambda self, name, value: (taken.append(name), keep(self, name, value)))
    landscape(LandscapeSettings(**{**given, "seeds": (1, 2)}), tmp_path, shown)
    assert len(taken) == 3 * (POINTS + 2)


def test_draws_share_no_rows() -> None:
    first, second = landscaping._draws("task", range(9), 3)
    assert len({*first, *second}) == 6
    assert len(landscaping._draws("task", range(9), 32)[0]) == 4
    with pytest.raises(InputError, match="two draws need two"):
        landscaping._draws("task", range(1), 3)


@pytest.mark.parametrize("change", [{"scale": "unit"}, {"points": 2}, {"reach": 0.0}])
def test_impossible_settings_are_refused(given: dict[str, Any], change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        LandscapeSettings(**{**given, **change})


def test_a_journal_forgets_other_keys_and_lines_that_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path, "old").keep("a", 1)
    journal = Journal(path, "new")
    assert journal.done == {}
    journal.keep("b", [2.5])
    path.write_bytes(path.read_bytes() + b'{"key": "new", "name": "c", "va')
    again = Journal(path, "new")
    assert again.done == {"b": [2.5]}
    again.keep("d", 4)
    assert Journal(path, "new").done == {"b": [2.5], "d": 4}
    assert os.listdir(tmp_path) == ["journal"]
