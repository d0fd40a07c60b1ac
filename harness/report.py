"""From the store back to the leaderboard: nothing here loads a model or generates a word."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..errors import InputError
from ..judges.base import Exchange
from ..results.method_result import MethodResult, Sample
from ..results.records import Verdict, combine
from .checkpoints import load_checkpoint
from .plan import Cell, Plan, Row
from .store import JudgeRecord, Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["report", "results_of"]

PLAN, STORE = "plan.json", "store.sqlite"


def report(folder: Path, console: Console, store_path: Path | None = None) -> "pd.DataFrame":
    """Rewrites leaderboard.csv and leaderboard.md of a run folder and prints the table.

    Raises:
        InputError: the folder holds no run, or nothing of it is finished.
    """
    from ..results.export import write_csv, write_markdown
    from ..results.leaderboard import leaderboard
    from ..results.terminal import render

    plan = load_plan(folder)
    store = open_store(folder, store_path)
    try:
        frame = leaderboard(results_of(plan, folder, store))
    finally:
        store.close()
    write_csv(frame, folder / "leaderboard.csv")
    write_markdown(frame, folder / "leaderboard.md")
    render(frame, console)
    return frame
