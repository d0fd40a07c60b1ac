"""The report's chart of what examples in the prompt add (table 3 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..columns import utility_columns
from .embed import visible
from .specs import METHODS, Chart, choice, field, height, measured, titled, vega

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gain_chart"]

_SUFFIX = "_fewshot"
"""Of the tasks whose metric is the accuracy gained (`tasks/fewshot_gain`)."""


def gain_chart(frame: pd.DataFrame, model: str) -> Iterator[Chart]:
    """Bars of the task that is chosen: the means over seeds and worlds of each method; nothing without such tasks.

    Args:
        frame: a leaderboard.
        model: for the title, empty where there is one alone.
    """
    tasks = [name for name in utility_columns(list(frame.columns)) if name.endswith(_SUFFIX)]
    means = frame.groupby("method", sort=False)[tasks].mean()
    rows = [
        {"method": visible(str(method)), "task": visible(task.removesuffix(_SUFFIX)), "gain": float(value)}
        for task in tasks
        for method, value in means[task].items()
        if value == value
    ]
    if not rows:
        return
    spec = vega(
        rows,
        "Accuracy gained by examples",
        height=height(rows),
        params=[choice("task", list(dict.fromkeys(str(row["task"]) for row in rows)), "task")],
        transform=[{"filter": "datum.task === task"}],
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "y": METHODS,
            "x": measured("gain", "points of accuracy gained"),
            "tooltip": [field("task"), field("method"), field("gain", "+.1f")],
        },
    )
    caption = "Accuracy with examples in the prompt less accuracy without, in points; the documents are the same."
    yield Chart("Few-shot gains", titled("What examples add", model), caption, spec)
