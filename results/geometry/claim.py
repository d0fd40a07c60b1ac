"""The page of `geometry claim`: are harmful losses better preserved than others, and does that tell who is repaired?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..html.embed import visible
from ..html.specs import Chart, Row, Spec, choice, field, legend, measured, vega
from .page import PageTable, number, write_page
from .preserved import CONTROL, PREDICTORS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAGE", "claim_charts", "claim_page"]

PAGE = "claim.html"
RANKS = {"rho": "by itself", "given_drift": "given drift"}
LEAD = (
    "r is of a tuned model's losses with its base's, example by example, given the number of tokens; padding is "
    "masked. Harmful prompts are compared with other sets on the same kind of target.",
    "A cell is one fine-tuning of one model. Intervals and tests are over models: what is claimed is claimed of the "
    "next.",
)


def claim_page(
    kept: pd.DataFrame, told: pd.DataFrame, cells: pd.DataFrame, facts: Mapping[str, Any], folder: Path, cache: Path
) -> Path:
    """Writes claim.html into a folder and returns its path.

    Args:
        kept: as `preserved.preserved` makes it.
        told: as `preserved.predicted` makes it.
        cells: as `preserved.predicted` takes them.
        facts: settings and digests.
        folder: where it goes.
        cache: where the charts' library is kept.

    Raises:
        InputError: it cannot be written.
    """
    charts, tables = list(claim_charts(kept, told, cells)), [_kept_table(kept), _told_table(told)]
    write_page(folder / PAGE, "Is harmful loss preserved, and does that matter?", LEAD, charts, tables, facts, cache)
    return folder / PAGE


def claim_charts(kept: pd.DataFrame, told: pd.DataFrame, cells: pd.DataFrame) -> Iterator[Chart]:
    """Of what there is: differences with their intervals; what predicts a repair; cell by cell."""
    if len(kept):
        yield _differences(kept)
    if len(told):
        yield _ranks(told)
        yield _cells(cells)


def _lane(title: str) -> Spec:
    return {"field": "where", "type": "nominal", "sort": None, "title": title, "axis": {"labelLimit": 240}}


def _interval(rows: list[Row], description: str, title: str, title_y: str, **parts: Any) -> Spec:
    """A dot and its interval for each row, beside a line at 0."""
    lane = _lane(title_y)
    x = {"field": "value", "type": "quantitative", "title": title}
    tooltip = [field("where"), *(field(name, ".3f") for name in ("value", "low", "high"))]
    colour = legend("kind")
    return vega(
        rows,
        description,
        height=24 * len({row["where"] for row in rows}),
        **parts,
        layer=[
            {"mark": {"type": "rule", "strokeDash": [4, 4]}, "encoding": {"x": {"datum": 0}}},
            {
                "mark": {"type": "rule", "strokeWidth": 2},
                "encoding": {"y": lane, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
                "encoding": {"y": lane, "x": x, "color": colour, "tooltip": tooltip},
            },
        ],
    )


def _differences(kept: pd.DataFrame) -> Chart:
    rows: list[Row] = [
        {
            "where": visible(f"{row['target']}: {row['set']}"), "kind": visible(row["target"]),
            "value": row["difference"], "low": _told(row["low"]), "high": _told(row["high"]),
        }
        for row in kept.to_dict("records")
    ]  # fmt: skip
    spec = _interval(
        rows, "Harmful losses against others", "z on harmful prompts less z on the set", "target: compared with"
    )
    caption = (
        "Fisher's z of r given length, harmful prompts less the other set, paired by fine-tuning; 95 % interval over "
        "models. To the right of 0 harmful losses are the better preserved ones."
    )
    return Chart("Preserved?", "Harmful losses against others", caption, spec)


def _told(value: float) -> float | None:
    """A number that there is, for a chart."""
    return value if value == value else None


def _ranks(told: pd.DataFrame) -> Chart:
    rows: list[Row] = []
    for row in told.to_dict("records"):
        for key, kind in RANKS.items():
            if row[key] == row[key]:
                place = {
                    "where": visible(f"{row['predictor']}, {kind}"),
                    "kind": kind,
                    "method": visible(row["method"]),
                }
                ends = {end: _told(row[f"{key}_{end}"]) for end in ("low", "high")}
                rows.append(place | {"value": row[key], **ends})
    methods = list(dict.fromkeys(row["method"] for row in rows)) or [visible(str(told["method"].iloc[0]))]
    spec = _interval(
        rows,
        "What tells how much a repair undoes",
        "rank correlation with the share of the drift that is undone",
        "r on harmful prompts' ...",
        params=[choice("repair", methods, "repair")],
        transform=[{"filter": "datum.method === repair"}],
    )
    caption = (
        f"Spearman's rho, and given drift, with the 95 % interval over draws of models. '{CONTROL}' is the control: "
        "the points of HRR that fine-tuning added, which need no geometry to be known."
    )
    return Chart("Does it predict?", "What tells how much a repair undoes", caption, spec)


def _cells(cells: pd.DataFrame) -> Chart:
    names = [name for name in (*PREDICTORS, CONTROL) if name in cells]
    rows: list[Row] = [
        {
            **{key: visible(str(row[key])) for key in ("model", "method")}, "seed": row["seed"], "by": name,
            "x": row[name], "undone": row["undone"],
        }
        for row in cells.to_dict("records") for name in names if row[name] == row[name]
    ]  # fmt: skip
    methods = list(dict.fromkeys(row["method"] for row in rows))
    spec = vega(
        rows,
        "Repairs by what was preserved",
        height=300,
        params=[choice("of", methods, "repair"), choice("by", names, "against")],
        transform=[{"filter": "datum.method === of && datum.by === by"}],
        mark={"type": "point", "filled": True, "size": 60, "opacity": 0.8},
        encoding={
            "x": measured("x", "r given length, or points of HRR"),
            "y": measured("undone", "percent of the drift undone"),
            "tooltip": [field("model"), field("seed", "d"), field("x", ".3f"), field("undone", ".1f")],
        },
    )
    return Chart("Does it predict?", "Cell by cell", "A dot is one fine-tuning of one model.", spec)


def _kept_table(kept: pd.DataFrame) -> PageTable:
    heads = ["target", "compared with", "models", "r harmful", "r other", "difference of z", "least, most", "p", "Holm"]
    rows = [
        [
            row["target"], row["set"], str(row["models"]), number(row["harmful"]), number(row["other"]),
            f"{number(row['difference'])} [{number(row['low'])}, {number(row['high'])}]",
            f"{number(row['least'])}, {number(row['most'])}", number(row["p"], 4), number(row["p_holm"], 4),
        ]
        for row in kept.to_dict("records")
    ]  # fmt: skip
    caption = "Given length. p: the sign-flip test over models, and corrected by Holm over all rows."
    return PageTable("Preserved?", caption, heads, rows, left=2)


def _told_table(told: pd.DataFrame) -> PageTable:
    heads = ["repair", "predictor", "models", "cells", "Spearman's rho", "given drift"]
    rows = [
        [*(str(row[name]) for name in ("method", "predictor", "models", "cells")), *map(partial(_ends, row), RANKS)]
        for row in told.to_dict("records")
    ]
    return PageTable("Does it predict?", "With the share of the drift that a repair undoes.", heads, rows, left=2)


def _ends(row: Mapping[Any, Any], name: str) -> str:
    return f"{number(row[name])} [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"
