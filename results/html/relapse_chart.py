"""The charts of harm while finished checkpoints are fine-tuned again, a line per method."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..method_result import MethodResult
from ..relapse import curves
from .embed import visible
from .specs import Chart, Spec, field, legend, measured, percent, titled, vega

__all__ = ["relapse_charts"]


def relapse_charts(model: str, results: Sequence[MethodResult]) -> Iterator[Chart]:
    """One chart per fine-tuning.

    Args:
        model: for titles; empty where there is one alone.
        results: finished rows, of one model or of replicas.
    """
    if not any(result.relapse for result in results):
        return
    frame = curves(results)
    for attack, own in frame.groupby("attack", sort=False):
        several = bool(own.duplicated(["method", "steps"]).any())
        low, high = ("hrr", "hrr") if several else ("hrr_low", "hrr_high")
        groups = own.groupby(["method", "steps"], sort=False)
        means = groups.agg(hrr=("hrr", "mean"), low=(low, "min"), high=(high, "max")).reset_index()
        means["method"] = [visible(str(method)) for method in means["method"]]
        half = own.drop_duplicates(["model", "seed"])["half"].dropna()
        title = f"HRR in fine-tuning again: {visible(str(attack))}"
        level = " The dashed line is half of the drift from base to lora." if len(half) else ""
        ends = "from the lowest row to the highest" if several else "its 95 % interval"
        yield Chart(
            "Relapse",
            titled(title, model),
            f"Percent of responses after so many optimizer steps; low and high are {ends}.{level} A click on a method "
            "in the legend leaves it alone.",
            _spec(means.to_dict("records"), title, float(half.mean()) if len(half) else None),
        )


def _spec(rows: Sequence[Mapping[Any, Any]], title: str, half: float | None) -> Spec:
    line: Spec = {
        "params": [{"name": "chosen", "select": {"type": "point", "fields": ["method"]}, "bind": "legend"}],
        "mark": {"type": "line", "point": {"size": 30}},
        "encoding": {
            "x": {**measured("steps", "optimizer steps"), "scale": {"nice": False}},
            "y": percent("hrr"),
            "color": legend("method"),
            "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.1},
            "tooltip": [field("method"), field("steps"), *(field(name, ".1f") for name in ("hrr", "low", "high"))],
        },
    }
    level: Spec = {
        "data": {"values": [{"half": half}]},
        "mark": {"type": "rule", "strokeDash": [5, 4], "opacity": 0.6},
        "encoding": {"y": percent("half")},
    }
    return vega(rows, title, height=240, layer=[line] if half is None else [line, level])
