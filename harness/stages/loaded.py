"""A finished run in Python: its leaderboard, and what else can be had from its store."""

from pathlib import Path

import pandas as pd

from ...results.judge_table import with_corrected
from ...results.leaderboard import leaderboard
from .drifting import drifts
from .folder import load_plan, open_store
from .judge_tables import judge_tables
from .judged import judged_rows
from .report import results_of
from .reviewed import labels

__all__ = ["Run", "load_run"]


class Run(pd.DataFrame):
    """The leaderboard of a finished run; parts and copies of it are plain tables."""

    _metadata = ["folder"]  # noqa: RUF012  # as pandas wants it
    folder: Path
    """Of the run."""

    def drift(self, tuned: str = "lora") -> pd.DataFrame:
        """From base to fine-tuned to restored, per method, measure, judge and hazard category (`drifts`)."""
        return drifts(self.folder, tuned)

    @property
    def labels(self) -> pd.DataFrame:
        """What people said of responses, with weights from which rates can be estimated (`reviewed.labels`)."""
        return labels(self.folder)


def load_run(folder: Path | str) -> Run:
    """The leaderboard of a run folder, computed from its store; columns as in leaderboard.csv.

    Raises:
        InputError: the folder holds no run, or nothing of it is finished.
    """
    folder = Path(folder)
    plan = load_plan(folder)
    store = open_store(folder, None)
    try:
        rates = judge_tables(judged_rows(plan, folder, store), folder, over_worlds=False).rates
        run = Run(with_corrected(leaderboard(results_of(plan, folder, store)), rates))
    finally:
        store.close()
    run.folder = folder
    return run
