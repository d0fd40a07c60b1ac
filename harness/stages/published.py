"""The published numbers that a config names, beside what its run measured: published.csv, and a table to print."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ...errors import InputError
from ...results.audit import read_numbers, table_path
from ...results.beside import Places, beside
from ...results.beside_view import render
from ...results.export import write_table
from ...results.method_result import MethodResult
from ..config.model import RunConfig
from ..config.task_checks import lm_eval_metrics
from .generate import task_infos

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PUBLISHED", "SHARES", "write_published"]

PUBLISHED = "published.csv"
SHARES = ("acc", "acc_norm", "acc_bytes", "exact_match", "em")
"""Metrics of lm-eval and of ours that are means of values from 0 to 1, one for each document."""


def write_published(
    config: RunConfig, results: Sequence[MethodResult], frame: "pd.DataFrame", folder: Path, console: Console
) -> "pd.DataFrame | None":
    """Writes published.csv and prints it; a table that can no longer be read is told, and left out.

    Args:
        config: names the tables and where their numbers go.
        results: the rows.
        frame: their leaderboard.
        folder: where the file goes.
        console: where the table goes.

    Returns:
        The columns `beside.BESIDE`; None where the config names no table that can be read.

    Raises:
        InputError: the file cannot be written.
    """
    import pandas as pd

    shares = _shares(config)
    documents = {
        (result.model, result.method, result.seed): {name: n for name, n in result.documents.items() if name in shares}
        for result in results
    }
    found = []
    for name, table in config.published.items():
        try:
            numbers = read_numbers(table_path(name))
        except InputError as error:
            line = f"warning: published numbers are left out: {error}"
            console.print(Text(line, style="yellow"), soft_wrap=True)
            continue
        found.append(beside(numbers, Places(table.models, table.rows, table.columns), frame, documents))
    if not found:
        return None
    whole = pd.concat(found, ignore_index=True)
    write_table(whole, folder / PUBLISHED)
    render(whole, console)
    return whole


def _shares(config: RunConfig) -> set[str]:
    """The utility tasks with published numbers whose value is a share of documents.

    A gain is none: it may be negative. Of a task of lm-eval's own, whose first metric is taken, all must be shares.
    """
    wanted = {column for table in config.published.values() for column in table.columns.values()}
    found = set()
    for name, task in task_infos(config).items():
        if name in wanted and task.role == "utility" and task.is_rate:
            metrics = (task.metric,) if task.metric else lm_eval_metrics(name)
            if metrics and set(metrics) <= set(SHARES):
                found.add(name)
    return found
