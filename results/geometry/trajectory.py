"""The page of `geometry trajectory`: figures 8 and 9 of the paper, and the losses along the paths themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..html.embed import visible
from ..html.specs import Chart, Row, Spec, choice, field, measured, vega
from .contours import cells, contour_lines
from .page import PageTable, number, write_page

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GROUNDS", "PAGE", "trajectory_charts", "trajectory_page"]

PAGE = "trajectory.html"
GROUNDS = {
    "objective": "the objective",
    "harmful": "its part on harmful prompts",
    "retain": "the loss on rows of the task",
}
"""Columns of the grid, by what they are; less is better in all."""
PATHS = {"first-order": "#0072b2", "curvature-aware": "#d55e00"}
"""Of Okabe and Ito; blue and red in the paper."""
STAR = "M0,-1L0.22,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.22,-0.31Z"
LEAD = (
    "Two ways from the tuned model (the star): down the gradient, and by the restoration's own updates, with steps of "
    "the same length, in the plane that the first two principal components of all visited weights span.",
    "Contours are the objective at points of that plane, on fixed rows and with the weights of the first update. Paths "
    "are projected: where one is far off the plane, what lies under it is not its loss. The last charts have losses at "
    "the weights themselves.",
)


def trajectory_page(
    paths: pd.DataFrame,
    grid: pd.DataFrame,
    planes: pd.DataFrame,
    facts: Mapping[str, Any],
    folder: Path,
    library_cache: Path,
) -> Path:
    """Writes trajectory.html into a folder and returns its path.

    Args:
        paths: preset, step_size, path, step, a, b, off, harmful, retain, objective.
        grid: preset, step_size, a, b, harmful, retain, objective.
        planes: preset, step_size, length, explained_1, explained_2, weight, and `... ended` of each path.
        facts: settings and digests.
        folder: where it goes.
        library_cache: where the charts' library is kept.

    Raises:
        InputError: it cannot be written.
    """
    charts = list(trajectory_charts(paths, grid, planes))
    title = "Paths through weight space: first-order and curvature-aware"
    write_page(folder / PAGE, title, LEAD, charts, [_planes(planes, paths)], facts, library_cache)
    return folder / PAGE


def trajectory_charts(paths: pd.DataFrame, grid: pd.DataFrame, planes: pd.DataFrame) -> Iterator[Chart]:
    """For each step size, both paths over contours, the settings and the ground to choose from; then their losses."""
    for place, size in enumerate(dict.fromkeys(planes["step_size"]), start=1):
        own = [table[table["step_size"] == size] for table in (paths, grid, planes)]
        yield _figure(own[0], own[1], own[2], f"{size:g}", str(place))
    yield _losses(paths)


def _figure(paths: pd.DataFrame, grid: pd.DataFrame, planes: pd.DataFrame, size: str, key: str) -> Chart:
    presets, rows = [visible(str(name)) for name in planes["preset"]], [*_ground(grid), *_points(paths)]
    title = "along the {} principal component"
    scale = {"zero": False, "nice": False, "padding": 0}
    x, y = (
        {"field": name, "type": "quantitative", "title": title.format(which), "scale": scale}
        for name, which in (("a", "first"), ("b", "second"))
    )
    colours = {"domain": [*PATHS], "range": [*PATHS.values()]}
    place: Spec = {"x": x, "y": y, "order": {"field": "step"}, "detail": {"field": "path", "type": "nominal"}}
    path: Spec = {**place, "color": {"field": "path", "type": "nominal", "title": None, "scale": colours}}
    again: Spec = {**path, "color": {**path["color"], "legend": None}}
    tooltip = [field("path"), field("step", "d"), *(field(name, ".4g") for name in (*GROUNDS, "off"))]
    only: Spec = {"filter": f"datum.preset === preset{key}"}
    spec = vega(
        rows,
        f"Paths at step size {size}",
        height=380,
        params=[choice(f"preset{key}", presets, "settings"), choice(f"ground{key}", [*GROUNDS.values()], "ground")],
        transform=[only],
        resolve={"scale": {"color": "independent"}},
        layer=[
            {
                "transform": [{"filter": f"datum.kind === 'cell' && datum.ground === ground{key}"}],
                "mark": {"type": "rect"},
                "encoding": {
                    "x": x, "x2": {"field": "a2"}, "y": y, "y2": {"field": "b2"}, "tooltip": [field("loss", ".5g")],
                    "color": {
                        "field": "loss", "type": "quantitative", "title": "nats per token",
                        "scale": {"scheme": "viridis", "reverse": True, "zero": False},
                    },
                },
            },
            {
                "transform": [{"filter": f"datum.kind === 'line' && datum.ground === ground{key}"}],
                "mark": {"type": "line", "color": "white", "strokeWidth": 1, "opacity": 0.7, "clip": True},
                "encoding": {"x": x, "y": y, "detail": {"field": "wire", "type": "nominal"}, "order": {"field": "at"}},
            },
            {
                "transform": [{"filter": "datum.kind === 'path'"}],
                "mark": {"type": "line", "color": "white", "strokeWidth": 5, "opacity": 0.9, "strokeJoin": "round"},
                "encoding": place,
            },
            {
                "transform": [{"filter": "datum.kind === 'path'"}],
                "mark": {"type": "line", "strokeWidth": 2.5, "strokeJoin": "round"},
                "encoding": path,
            },
            {
                "transform": [{"filter": "datum.kind === 'path'"}],
                "mark": {"type": "point", "filled": True, "size": 30, "opacity": 1, "stroke": "white"},
                "encoding": {**again, "tooltip": tooltip},
            },
            {
                "transform": [{"filter": "datum.kind === 'path' && datum.step === 0"}],
                "mark": {"type": "point", "shape": STAR, "filled": True, "size": 260, "opacity": 1, "color": "#00c853",
                         "stroke": "black", "strokeWidth": 1},
                "encoding": {"x": x, "y": y},
            },
        ],
    )  # fmt: skip
    told = "; ".join(
        f"{visible(str(row['preset']))}: {100 * row['explained_1']:.0f} % and {100 * row['explained_2']:.0f} %"
        for row in planes.to_dict("records")
    )
    caption = (
        f"Each step is {size} of the tuned adapter's length, or less where a Newton step is shorter. Yellow is better. "
        f"The two components explain, of the visited weights' variance, by settings: {told}."
    )
    return Chart("Paths", f"Paths at step size {size}", caption, spec)


def _ground(grid: pd.DataFrame) -> Iterator[Row]:
    for preset, own in grid.groupby("preset", sort=False):
        a, b = (sorted(set(own[axis])) for axis in ("a", "b"))
        for name, title in GROUNDS.items():
            surface = own.pivot(index="a", columns="b", values=name).to_numpy(np.float64)
            levels = np.quantile(surface[np.isfinite(surface)], np.linspace(0, 1, 12)[1:-1]).tolist()
            about = {"preset": visible(str(preset)), "ground": title}
            drawn = (*cells(surface, a, b), *contour_lines(surface, a, b, levels))
            yield from ({**about, **row} for row in drawn if math.isfinite(row.get("loss", 0.0)))


def _points(paths: pd.DataFrame) -> Iterator[Row]:
    for row in paths.to_dict("records"):
        values = {name: round(row[name], 6) if math.isfinite(row[name]) else None for name in (*GROUNDS, "off")}
        about = {"kind": "path", "preset": visible(str(row["preset"])), "path": row["path"], "step": row["step"]}
        yield {**about, "a": round(row["a"], 7), "b": round(row["b"], 7), **values}


def _losses(paths: pd.DataFrame) -> Chart:
    rows: list[Row] = [
        {
            **{"preset": visible(str(row["preset"])), "size": f"{row['step_size']:g}", "path": row["path"]},
            **{"step": row["step"], "of": title, "value": round(row[name], 6)},
        }
        for row in paths.to_dict("records")
        for name, title in GROUNDS.items()
        if math.isfinite(row[name])
    ]
    presets, sizes = (list(dict.fromkeys(row[name] for row in rows)) for name in ("preset", "size"))
    colours = {"domain": [*PATHS], "range": [*PATHS.values()]}
    spec = vega(
        rows,
        "Losses along the paths",
        height=300,
        params=[
            choice("way", presets, "settings"), choice("pace", sizes, "step size"),
            choice("told", [*GROUNDS.values()], "what"),
        ],
        transform=[{"filter": "datum.preset === way && datum.size === pace && datum.of === told"}],
        mark={"type": "line", "point": True},
        encoding={
            "x": {"field": "step", "type": "quantitative", "title": "steps", "axis": {"tickMinStep": 1, "format": "d"}},
            "y": measured("value", "nats per token"),
            "color": {"field": "path", "type": "nominal", "title": None, "scale": colours},
            "tooltip": [field("path"), field("step", "d"), field("value", ".5g")],
        },
    )  # fmt: skip
    caption = "At the weights that a path went through, not at their projections; less is better."
    return Chart("Losses along the paths", "Losses along the paths", caption, spec)


def _planes(planes: pd.DataFrame, paths: pd.DataFrame) -> PageTable:
    rows = []
    for plane in planes.to_dict("records"):
        for name in PATHS:
            own = paths[
                (paths["preset"] == plane["preset"])
                & (paths["step_size"] == plane["step_size"])
                & (paths["path"] == name)
            ]
            first, last = own.iloc[0], own.iloc[-1]
            rows.append(
                [
                    str(plane["preset"]), f"{plane['step_size']:g}", name, str(plane[f"{name} ended"]),
                    str(last["step"]), *(f"{number(first[g], 4)} → {number(last[g], 4)}" for g in GROUNDS),
                    f"{100 * plane['explained_1']:.1f} + {100 * plane['explained_2']:.1f}", number(own["off"].max(), 4),
                    number(plane["length"], 4), number(plane["weight"], 2),
                ]
            )  # fmt: skip
    heads = ["settings", "step size", "path", "ended", "steps", "objective", "on harmful prompts", "on the task",
             "explained %", "off the plane", "a step's length", "weight of the task"]  # fmt: skip
    caption = (
        "Losses at the tuned model and where each path ended; the objective is the part on harmful prompts and the "
        "loss on the task times its weight. Explained: by the first and second component. Off the plane: the farthest "
        "point."
    )
    return PageTable("Where the paths lead", caption, heads, rows, left=4)
