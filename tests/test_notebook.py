"""docs/sandbox.ipynb runs from first to last cell, made small, and what it shows is what it gave as it stands."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from safebasin.harness.sandbox.build import build_world

from .conftest import guard

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "sandbox.ipynb"
SMALL = "STEPS, PROMPTS, ITERATIONS = 6, 12, 1"


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_has_ten_cells_with_what_they_gave(notebook: nbformat.NotebookNode) -> None:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) == 10
    assert [cell.execution_count for cell in cells] == list(range(1, 11))
    assert all(cell.outputs for cell in cells[1:])
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"execute_result", "display_data"}, "errors, and text of progress bars, are none of it"
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 100_000
    assert re.findall(r"(?:/home|/root|/tmp|/Users)/[\w.-]+", text) == []


@pytest.mark.filterwarnings("ignore")
def test_it_runs(notebook: nbformat.NotebookNode, tmp_path: Path) -> None:
    build_world()
    small = nbformat.v4.new_code_cell(SMALL)
    (first,) = [number for number, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])]
    cells = [*notebook.cells[: first + 1], small, *notebook.cells[first + 1 :]]
    given = nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)
    NotebookClient(
        given, timeout=int(guard()), kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    board = pd.read_csv(tmp_path / "runs" / "notebook" / "leaderboard.csv").set_index("method")
    assert list(board.index) == ["base", "lora", "shrink", "restored"]
    assert set(board["status"]) == {"ok"}
    assert set(board["n"]) == {12}
    assert board.loc["lora", "eval_loss"] < board.loc["base", "eval_loss"]
    assert board.loc["restored", "eval_loss"] != board.loc["lora", "eval_loss"]
