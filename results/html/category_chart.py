"""The report's chart of rates for each kind of request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..by_category import by_category
from .embed import visible
from .specs import METHODS, Chart, Spec, choice, field, height, titled, vega

if TYPE_CHECKING:
    from ..method_result import MethodResult

__all__ = ["category_chart"]


def category_chart(results: Sequence[MethodResult], model: str) -> Iterator[Chart]:
    """A table in colours, method by kind, of the measure that is chosen; nothing where the data name no kinds.

    Args:
        results: finished rows, of one model or of replicas.
        model: for the title, empty where there is one alone.
    """
    frame = by_category(results)
    if frame.empty:
        return
    means = frame.groupby(["measure", "method", "category"], sort=False).agg({"rate": "mean", "n": "sum"}).reset_index()
    rows = [
        {"measure": measure, "method": visible(method), "category": visible(category), "rate": float(rate), "n": int(n)}
        for measure, method, category, rate, n in means.itertuples(index=False)
    ]
    kind: Spec = {"field": "category", "type": "nominal", "sort": None, "title": None}
    percent: Spec = {"field": "rate", "type": "quantitative", "title": "percent", "scale": {"domain": [0, 100]}}
    spec = vega(
        rows,
        "Rates by kind of request",
        height=height(rows),
        params=[choice("measure", list(dict.fromkeys(frame["measure"])), "measure")],
        transform=[{"filter": "datum.measure === measure"}],
        encoding={"x": {**kind, "axis": {"labelAngle": -30, "labelLimit": 130}}, "y": METHODS},
        layer=[
            {
                "mark": "rect",
                "encoding": {
                    "color": {**percent, "scale": {"domain": [0, 100], "scheme": "blues"}},
                    "tooltip": [field("method"), field("category"), field("rate", ".1f"), field("n", "d")],
                },
            },
            {
                "mark": {"type": "text", "fontSize": 11},
                "encoding": {
                    "text": {"field": "rate", "type": "quantitative", "format": ".0f"},
                    "color": {"condition": {"test": "datum.rate > 60", "value": "white"}, "value": "black"},
                },
            },
        ],
    )
    caption = (
        "Percent, means where there are several seeds or worlds; n under the pointer. Kinds have few requests: "
        "intervals are in categories.csv."
    )
    yield Chart("Kinds of request", titled("Rates by kind of request", model), caption, spec)
