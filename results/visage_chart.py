"""The chart of the basins: what responses are as the weights move away, a line per method."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from .frontier_chart import LABEL, STYLE
from .text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["draw"]

PANELS = {
    "keyword_asr": "no refusal keyword (the published ASR)",
    "harmful": "harmful, by the judge",
    "refused": "refused, in whole sentences",
    "incoherent": "incoherent",
}
"""Column of `results.sweep.points` -> title; in percent."""
COLUMNS = 2
DASHES = ("-", "--", ":")
FEW = 6
"""Methods whose bands can be told apart."""


def draw(frame: pd.DataFrame) -> str:
    """Draws the basins as SVG: the mean over directions and seeds; of few methods, a band from lowest to highest.

    Args:
        frame: what `results.sweep.points` made; each model gets its own panels.

    Returns:
        The text of the SVG, the same for the same frame.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(frame["model"]))
    lines = len(models) * (len(PANELS) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * COLUMNS, 3.0 * lines), layout="constrained")
        panels = iter(figure.subplots(lines, COLUMNS, squeeze=False).flat)
        for model in models:
            for column, title in PANELS.items():
                several = f"{one_line(model, LABEL)}: {title}" if len(models) > 1 else title
                _panel(next(panels), frame[frame["model"] == model], column, several)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def _panel(axes: Any, frame: pd.DataFrame, column: str, title: str) -> None:
    for number, (method, group) in enumerate(frame.groupby("method", sort=False)):
        by_alpha = group.groupby("alpha")[column]
        mean, low, high = by_alpha.mean(), by_alpha.min(), by_alpha.max()
        dashes = DASHES[number // 10 % len(DASHES)]  # the colours repeat after ten
        (line,) = axes.plot(
            mean.index, mean, dashes, marker=".", markersize=3, linewidth=1.2, label=one_line(str(method), LABEL)
        )
        if frame["method"].nunique() <= FEW:
            axes.fill_between(mean.index, low, high, color=line.get_color(), alpha=0.1, linewidth=0)
    axes.set_ylim(-3, 103)
    axes.set_title(title)
    axes.set_xlabel("perturbation, as a share of each tensor's norm")
    axes.set_ylabel("percent of responses")
    axes.grid(alpha=0.3, linewidth=0.5)
