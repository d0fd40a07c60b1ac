"""The page of `geometry landscape`: figures 2, 5 and 6 and table 8 of the paper, with noise floors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..html.embed import visible
from ..html.specs import Chart, Row, Spec, choice, field, legend, measured, vega
from .contours import LEVELS, cells, contour_lines
from .page import PageTable, number, write_page

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["PAGE", "Grids", "landscape_charts", "landscape_page"]

PAGE = "landscape.html"
BASE = "base"
Grids = Callable[[str, str, int], "NDArray[np.float64]"]
"""(model, set, draw) -> its surface, rows along the first direction."""
KINDS = {
    "models": "two models",
    "rows": "floor: one model, two draws of rows",
    "directions": "floor: one model, other directions",
}
LEAD = (
    "Losses, in nats per token, on a grid of points around each model's weights, along directions that all share.",
    "A structural difference says something where it lies above its noise floors: what one and the same model differs "
    "by from draw to draw of the rows, and from one pair of directions to another.",
)


def landscape_page(
    grid: Grids,
    sets: Sequence[str],
    models: Sequence[str],
    table: pd.DataFrame,
    sections: pd.DataFrame,
    structures: pd.DataFrame,
    percentiles: pd.DataFrame,
    facts: Mapping[str, Any],
    folder: Path,
    library_cache: Path,
) -> Path:
    """Writes landscape.html into a folder and returns its path.

    Args:
        grid: the surfaces.
        sets: what losses were taken on.
        models: the base first.
        table: model, set, draw, a, b, loss: gives the coordinates.
        sections: model, set, draw, direction, a, b, loss.
        structures: set, compared, kind, draw, signed, absolute, r, spread.
        percentiles: set, model, percentile, raw, absolute.
        facts: settings and digests.
        folder: where it goes.
        library_cache: where the charts' library is kept.

    Raises:
        InputError: it cannot be written.
    """
    coordinates = sorted(set(table["a"]))
    charts = list(landscape_charts(grid, sets, models, coordinates, sections, structures))
    tables = [_structures(structures), _percentiles(percentiles)]
    title = "Loss landscapes before and after fine-tuning"
    write_page(folder / PAGE, title, LEAD, charts, tables, facts, library_cache)
    return folder / PAGE


def landscape_charts(
    grid: Grids,
    sets: Sequence[str],
    models: Sequence[str],
    coordinates: Sequence[float],
    sections: pd.DataFrame,
    structures: pd.DataFrame,
) -> Iterator[Chart]:
    """Surfaces, contours, cross-sections and structural differences, the sets to choose from."""
    yield _surfaces(grid, sets, models)
    yield _contours(grid, sets, models, coordinates)
    yield _sections(sections, sets)
    yield _differences(structures, sets)


def _surfaces(grid: Grids, sets: Sequence[str], models: Sequence[str]) -> Chart:
    rows: list[Row] = []
    for name in sets:
        surfaces = {model: grid(model, name, 0) for model in models}
        low = min(float(surface.min()) for surface in surfaces.values())
        high = max(float(surface.max()) for surface in surfaces.values())
        for model, surface in surfaces.items():
            height = (surface - low) / ((high - low) or 1.0)
            rows += _wires(visible(name), visible(model), surface, height)
    x = {"field": "x", "type": "quantitative", "axis": None, "scale": {"domain": [-1.5, 1.5]}}
    y = {"field": "y", "type": "quantitative", "axis": None, "scale": {"domain": [-1.1, 2.1]}}
    spec = vega(
        rows,
        "Surfaces of the loss",
        height=420,
        params=[
            choice("surface", sets, "losses on"),
            _slider("turn", "turn", 0, 360, 35),
            _slider("tilt", "tilt", 5, 85, 25),
            {"name": "chosen", "select": {"type": "point", "fields": ["model"]}, "bind": "legend"},
        ],
        transform=[
            {"filter": "datum.set === surface"},
            {"calculate": "datum.u * cos(turn * PI / 180) - datum.v * sin(turn * PI / 180)", "as": "x"},
            {"calculate": "datum.u * sin(turn * PI / 180) + datum.v * cos(turn * PI / 180)", "as": "depth"},
            {"calculate": "1.3 * datum.h * cos(tilt * PI / 180) + datum.depth * sin(tilt * PI / 180)", "as": "y"},
        ],
        mark={"type": "line", "strokeWidth": 1},
        encoding={
            "x": x, "y": y, "detail": {"field": "wire", "type": "nominal"}, "order": {"field": "at"},
            "color": legend("model"), "tooltip": [field("model"), field("loss", ".4g")],
            "opacity": {"condition": {"param": "chosen", "value": 0.8}, "value": 0.05},
        },
    )  # fmt: skip
    caption = (
        "Figures 2 and 5 of the paper, as wires; height is the loss, on one scale for all models. Turn and tilt it; a "
        "click on a model in the legend leaves it alone."
    )
    return Chart("Surfaces", "Surfaces of the loss", caption, spec)


def _wires(name: str, model: str, surface: NDArray[np.float64], height: NDArray[np.float64]) -> Iterator[Row]:
    """Each point on the wire of its row and on that of its column."""
    n = len(surface)
    places = [round(2 * place / (n - 1) - 1, 4) for place in range(n)]
    for i in range(n):
        for j in range(n):
            about = {"set": name, "model": model, "u": places[i], "v": places[j]}
            about |= {"h": round(float(height[i, j]), 4), "loss": round(float(surface[i, j]), 5)}
            yield {**about, "wire": f"{model} row {i}", "at": j}
            yield {**about, "wire": f"{model} column {j}", "at": i}


def _slider(name: str, label: str, low: int, high: int, value: int) -> Spec:
    return {
        "name": name,
        "value": value,
        "bind": {"input": "range", "min": low, "max": high, "step": 1, "name": f"{label} "},
    }


def _contours(grid: Grids, sets: Sequence[str], models: Sequence[str], coordinates: Sequence[float]) -> Chart:
    rows: list[Row] = []
    shown = [*models, *(f"{model} less {BASE}" for model in models if model != BASE)]
    for name in sets:
        for label in shown:
            model = label.removesuffix(f" less {BASE}")
            surface = grid(model, name, 0) - (grid(BASE, name, 0) if label != model else 0.0)
            about = {"set": visible(name), "shown": visible(label)}
            drawn = (*cells(surface, coordinates, coordinates), *contour_lines(surface, coordinates, coordinates))
            rows += [{**about, **row} for row in drawn]
    x = {
        "field": "a",
        "type": "quantitative",
        "title": "along the first direction",
        "scale": {"zero": False, "nice": False},
    }
    y = {
        "field": "b",
        "type": "quantitative",
        "title": "along the second direction",
        "scale": {"zero": False, "nice": False},
    }
    colour = {
        "field": "loss",
        "type": "quantitative",
        "title": "nats per token",
        "scale": {"scheme": "viridis", "zero": False},
    }
    spec = vega(
        rows,
        "Contours of the loss",
        height=360,
        params=[choice("ground", sets, "losses on"), choice("of", shown, "of")],
        transform=[{"filter": "datum.set === ground && datum.shown === of"}],
        layer=[
            {
                "transform": [{"filter": "datum.kind === 'cell'"}],
                "mark": {"type": "rect"},
                "encoding": {
                    "x": x, "x2": {"field": "a2"}, "y": y, "y2": {"field": "b2"}, "color": colour,
                    "tooltip": [field("loss", ".5g")],
                },
            },
            {
                "transform": [{"filter": "datum.kind === 'line'"}],
                "mark": {"type": "line", "color": "white", "strokeWidth": 1, "opacity": 0.8, "clip": True},
                "encoding": {"x": x, "y": y, "detail": {"field": "wire", "type": "nominal"}, "order": {"field": "at"}},
            },
        ],
    )  # fmt: skip
    caption = f"The same from above, each on its own scale of colours, with {LEVELS} contour lines."
    return Chart("Surfaces", "Contours of the loss", caption, spec)


def _sections(sections: pd.DataFrame, sets: Sequence[str]) -> Chart:
    rows = [
        {
            **{"set": visible(row["set"]), "model": visible(row["model"]), "draw": f"draw {row['draw']}"},
            **{"direction": f"along direction {row['direction']}", "at": row["a"] + row["b"], "loss": row["loss"]},
        }
        for row in sections.to_dict("records")
    ]
    directions = list(dict.fromkeys(row["direction"] for row in rows))
    spec = vega(
        rows,
        "Cross-sections through the origin",
        height=300,
        params=[choice("cut", sets, "losses on"), choice("way", directions, "direction")],
        transform=[{"filter": "datum.set === cut && datum.direction === way"}],
        mark={"type": "line", "point": {"size": 15}},
        encoding={
            "x": {**measured("at", "distance, in units of the direction"), "scale": {"nice": False, "zero": False}},
            "y": measured("loss", "loss, nats per token"),
            "color": legend("model"),
            "strokeDash": legend("draw"),
            "tooltip": [field("model"), field("draw"), field("at", ".4g"), field("loss", ".5g")],
        },
    )
    caption = "Figure 6 of the paper, through the weights themselves (0). The second draw is of other rows."
    return Chart("Cross-sections", "Cross-sections through the origin", caption, spec)


def _differences(structures: pd.DataFrame, sets: Sequence[str]) -> Chart:
    rows = [
        {
            **{name: row[name] for name in ("signed", "absolute", "rough")},
            "set": visible(row["set"]),
            "kind": KINDS[row["kind"]],
            "compared": visible(row["compared"]) + (f", draw {row['draw']}" if row["kind"] == "models" else ""),
        }
        for row in structures.to_dict("records")
        if row["r"] == row["r"]
    ]
    axis = {"type": "quantitative", "title": "structural difference, percent", "scale": {"domain": [0, 200]}}
    kinds = {"domain": list(KINDS.values()), "range": ["#d55e00", "#0072b2", "#56b4e9"]}
    spec = vega(
        rows,
        "Structural differences",
        height=28 * max(1, len({row["compared"] for row in rows})),
        params=[choice("bent", sets, "losses on")],
        transform=[{"filter": "datum.set === bent"}],
        encoding={
            "y": {"field": "compared", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 220}},
            "color": legend("kind", kinds),
            "tooltip": [field("compared"), field("signed", ".2f"), field("absolute", ".2f"), field("rough", ".0f")],
        },
        layer=[
            {"mark": {"type": "bar", "height": {"band": 0.6}}, "encoding": {"x": {"field": "signed", **axis}}},
            {
                "mark": {"type": "tick", "thickness": 3, "color": "black"},
                "encoding": {"x": {"field": "absolute", **axis}},
            },
        ],
    )
    caption = (
        "Bars: (1 - r) of the Laplacians, 0 bent alike, 100 unrelated, 200 bent oppositely; ticks: (1 - |r|), as "
        "equation 8 has it. Blue bars are noise floors: a difference that is no larger than they are is none."
    )
    return Chart("Structure", "Structural difference and its noise floors", caption, spec)


def _structures(structures: pd.DataFrame) -> PageTable:
    rows = [
        [
            *(str(row[name]) for name in ("set", "compared", "kind")), str(row["draw"] or "both"),
            *(number(row[name], 2) for name in ("signed", "absolute")), number(row["r"]), number(row["rough"], 0),
            f"{row['spread']:.3g}",
        ]
        for row in structures.to_dict("records")
    ]  # fmt: skip
    heads = ["set", "compared", "kind", "draw", "signed %", "absolute %", "r", "rough %", "range, nats"]
    caption = (
        "Equation 8 of the paper, signed too. Rough: the share of the Laplacian's variance that no cubic polynomial of "
        "the place explains, which is rounding; where it is most of it, so is the difference. The range is the first "
        "surface's."
    )
    return PageTable("Structural differences", caption, heads, rows, left=3)


def _percentiles(percentiles: pd.DataFrame) -> PageTable:
    rows = [
        [str(row["set"]), str(row["model"]), str(row["percentile"]), number(row["raw"], 4), number(row["absolute"], 4)]
        for row in percentiles.to_dict("records")
    ]
    caption = "Table 8 of the paper: each model's losses less the base's, over all points of the grid."
    return PageTable("Percentiles", caption, ["set", "model", "percentile", "raw", "absolute"], rows, left=3)
