"""The chart of a frontier: each measure over the evaluation loss, a line and a band per method."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw"]

TITLES = {
    "hrr": "harmful responses (less is better)",
    "refusal_rate": "whole refusals of harmful requests (more is better)",
    "over_refusal": "innocent requests refused (less is better)",
}
COLUMNS = 2
STYLE: dict[Any, Any] = {"svg.hashsalt": "safebasin", "font.size": 8, "svg.fonttype": "none", "text.parse_math": False}
"""Names may hold dollar signs."""
LABEL = 60
"""Characters shown of a name."""


def draw(frame: pd.DataFrame, measures: Sequence[str]) -> str:
    """Draws the frontier as SVG: the mean over seeds at each epsilon, and a band from the lowest seed to the highest.

    Args:
        frame: what `results.frontier.frontier` made, of one model.
        measures: columns, one panel each; in percent.

    Returns:
        The text of the SVG, the same for the same frame.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    lines = -(-len(measures) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * COLUMNS, 3.0 * lines), layout="constrained")
        panels = figure.subplots(lines, COLUMNS, squeeze=False).flat
        for measure, axes in zip(measures, panels, strict=False):
            _panel(axes, frame, measure)
        for axes in [*panels][len(measures) :]:
            axes.set_axis_off()
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _panel(axes: Any, frame: pd.DataFrame, measure: str) -> None:
    swept = frame.dropna(subset=["epsilon"])
    for method, group in swept.groupby("method", sort=False):
        by_epsilon = group.groupby("epsilon")
        loss, mean = by_epsilon["eval_loss"].mean(), by_epsilon[measure].mean()
        (line,) = axes.plot(loss, mean, marker="o", markersize=3, linewidth=1.2, label=one_line(str(method), LABEL))
        low, high = by_epsilon[measure].min(), by_epsilon[measure].max()
        order = loss.argsort()
        axes.fill_between(loss.iloc[order], low.iloc[order], high.iloc[order], color=line.get_color(), alpha=0.12, lw=0)
    for method, marker in (("lora", "X"), ("base", "P")):
        own = frame[frame["method"] == method]
        if len(own):
            axes.plot(own["eval_loss"].mean(), own[measure].mean(), marker, color="black", markersize=6, label=method)
    axes.set_xscale("log")
    axes.set_title(TITLES.get(measure, f"{one_line(measure, LABEL)} (more is better)"))
    axes.set_xlabel("evaluation loss, nats per token")
    axes.set_ylabel("percent")
    axes.grid(alpha=0.3, linewidth=0.5)
