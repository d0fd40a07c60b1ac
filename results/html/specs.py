"""What charts of the report have in common: parts of Vega-Lite specifications."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .embed import visible

__all__ = [
    *(
        "METHODS",
        "Chart",
        "Row",
        "Spec",
        "choice",
        "field",
        "height",
        "legend",
        "measured",
        "percent",
        "titled",
        "vega",
    ),
]

Spec = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart and what stands around it."""

    section: str
    """Heading under which it stands."""
    title: str
    caption: str
    spec: Spec


def titled(title: str, model: str) -> str:
    """The title, with the model where the report has several."""
    return f"{model}: {title}" if model else title


METHODS: Spec = {
    "field": "method",
    "type": "nominal",
    "sort": None,
    "title": None,
    "axis": {"labelLimit": 170, "ticks": False, "domain": False},
}
"""One line per method."""


def vega(rows: Sequence[Mapping[Any, Any]], description: str, **parts: Any) -> Spec:
    """A specification with its data, as wide as the page lets it be."""
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": description,
        "width": "container",
        "data": {"values": list(rows)},
        **parts,
    }


def height(rows: Iterable[Row], each: int = 22) -> int:
    """In pixels, for one line per method; a `step` would do the same with a warning in the browser's console."""
    return each * len({row["method"] for row in rows})


def percent(name: str, title: str = "percent of responses") -> Spec:
    """An axis from 0 to 100."""
    scale = {"domain": [0, 100]}
    return {"field": name, "type": "quantitative", "title": title, "scale": scale, "axis": {"tickCount": 6}}


def measured(name: str, title: str) -> Spec:
    """An axis over what the data holds."""
    return {"field": name, "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 10}}


def legend(name: str, scale: Spec | None = None) -> Spec:
    """A colour or shape for each kind."""
    return {"field": name, "type": "nominal", "sort": None, "title": None, **({"scale": scale} if scale else {})}


def field(name: str, numbers: str | None = None) -> Spec:
    """A line of a tooltip."""
    kind = {"type": "quantitative", "format": numbers} if numbers else {"type": "nominal"}
    return {"field": name, "title": name, **kind}


def choice(name: str, options: Sequence[str], label: str) -> Spec:
    """A drop-down that sets a parameter."""
    shown = [visible(option) for option in options]
    return {"name": name, "value": shown[0], "bind": {"input": "select", "options": shown, "name": f"{label} "}}
