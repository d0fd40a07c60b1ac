"""A finished run in Python: its leaderboard, and what else can be had from its store."""

from pathlib import Path

import pandas as pd

from ...results.judge_table import with_corrected
from ...results.leaderboard import leaderboard
from .drifting import drifts
from .folder import load_plan, read_store
from .judge_tables import judge_tables
from .judged import judged_rows
from .report import results_of
from .reviewed import labels
from .tabled import responses, verdicts

__all__ = ["Run", "load_run"]


class Run(pd.DataFrame):
    """The leaderboard of a finished run; parts and copies of it are plain tables."""

    _metadata = ["folder", "store_path"]  # noqa: RUF012  # as pandas wants it
    folder: Path
    """Of the run."""
    store_path: Path | None
    """Folder of the store that it shares with other runs; None is its own."""

    @property
    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard as a plain table, columns as in leaderboard.csv."""
        return pd.DataFrame(self)

    @property
    def responses(self) -> pd.DataFrame:
        """Every judged response with its outcome (`tabled.responses`)."""
        return responses(self.folder, self.store_path)

    @property
    def verdicts(self) -> pd.DataFrame:
        """What each judge says of each response (`tabled.verdicts`)."""
        return verdicts(self.folder, self.store_path)

    def drift(self, tuned: str = "lora") -> pd.DataFrame:
        """From base to fine-tuned to restored, per method, measure, judge and hazard category (`drifts`)."""
        return drifts(self.folder, tuned, self.store_path)

    @property
    def labels(self) -> pd.DataFrame:
        """What people said of responses, with weights from which rates can be estimated (`reviewed.labels`)."""
        return labels(self.folder, self.store_path)


def load_run(folder: Path | str, store: Path | str | None = None) -> Run:
    """The leaderboard of a run folder, computed from its store; columns as in leaderboard.csv.

    Args:
        folder: of the run.
        store: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run, or nothing of it is finished.
    """
    folder = Path(folder)
    plan = load_plan(folder)
    store_path = None if store is None else Path(store)
    opened = read_store(folder, store_path)
    try:
        rates = judge_tables(judged_rows(plan, folder, opened), folder, over_worlds=False).rates
        run = Run(with_corrected(leaderboard(results_of(plan, folder, opened)), rates))
    finally:
        opened.close()
    run.folder, run.store_path = folder, store_path
    return run
