"""The report's charts of judges: rates as each sees them, what it gets wrong, and whether two agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .contents import Report
from .embed import visible
from .specs import METHODS, Chart, Row, Spec, choice, field, height, legend, percent, titled, vega

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["judge_charts"]

SECTION = "Judges"
COEFFICIENTS = {"kappa": "Cohen's kappa", "ac1": "Gwet's AC1"}
CORRECTED = "corrected"
"""What follows a judge's name where its rate is corrected."""


def judge_charts(report: Report, model: str, models: Sequence[str]) -> Iterator[Chart]:
    """The charts of one model, or of all worlds of one preset.

    Args:
        report: everything on the page.
        model: for titles; empty where there is one alone.
        models: names of the models.
    """
    for table, make in (
        (report.judge_rates, _rates),
        (report.judge_errors, _errors),
        (report.agreement, _agreement),
    ):
        if table is not None and len(table):
            yield from make(table, model, models)


def _rates(table: pd.DataFrame, model: str, models: Sequence[str]) -> Iterator[Chart]:
    """Each method's rate by each judge, and corrected; means where there are several seeds or worlds."""
    own = table[table["model"].isin(models)]
    if own["judge"].nunique() < 2 and own["corrected"].isna().all():
        return
    rows = [row for name in ("rate", "corrected") for row in _dots(own, name)]
    measures = list(dict.fromkeys(row["measure"] for row in rows))
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    lanes: Spec = {"yOffset": {"field": "judge", "type": "nominal", "scale": {"domain": judges}}}
    tooltip = [field("method"), field("judge"), *(field(name, ".1f") for name in ("value", "low", "high"))]
    encoding = {**lanes, "color": legend("judge", {"domain": judges})}
    yield Chart(
        SECTION,
        titled("Rates as each judge sees them", model),
        "Percent of responses with 95 % intervals; means, without them, where there are several seeds or worlds. "
        "Corrected: for the judge's errors, by labels on some of the row's own responses. An interval of what is not "
        "corrected takes its judge to be right.",
        vega(
            rows,
            "Rates by judge",
            height=height(rows, 12 + 9 * len(judges)),
            params=[choice("judged", measures, "measure")],
            transform=[{"filter": "datum.measure === judged"}],
            encoding={"y": {**METHODS, "scale": {"paddingInner": 0.3}}},
            layer=[
                {
                    "transform": [{"filter": "isValid(datum.low)"}],
                    "mark": {"type": "rule", "strokeWidth": 1.5},
                    "encoding": {"x": percent("low"), "x2": {"field": "high"}, **encoding},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1},
                    "encoding": {"x": percent("value"), "tooltip": tooltip, **encoding},
                },
            ],
        ),
    )


def _dots(table: pd.DataFrame, name: str) -> Iterator[Row]:
    known = table.dropna(subset=[name])
    for (measure, judge, method), group in known.groupby(["measure", "judge", "method"], sort=False):
        alone = len(group) == 1
        ends = [float(group[f"{name}{end}"].iloc[0]) if alone else None for end in ("_low", "_high")]
        yield {
            **{"measure": visible(str(measure)), "method": visible(str(method)), "value": float(group[name].mean())},
            "judge": visible(str(judge) if name == "rate" else f"{judge}, {CORRECTED}"),
            **{"low": ends[0], "high": ends[1]},
        }


def _errors(table: pd.DataFrame, model: str, models: Sequence[str]) -> Iterator[Chart]:
    """Sensitivity and specificity of each judge; of worlds, a dot for each."""
    own = table[table["model"].isin(models)]
    rows = [
        {
            **{"measure": visible(row["measure"]), "judge": visible(row["judge"]), "what": name, "value": row[name]},
            **{"low": row[f"{name}_low"], "high": row[f"{name}_high"], "labelled": row["labelled"]},
            "model": visible(row["model"]),
        }
        for row in own.to_dict("records")
        for name in ("sensitivity", "specificity")
        if row[name] is not None and row[name] == row[name]
    ]
    if not rows:
        return
    source = visible(", ".join(dict.fromkeys(own["labels"])))
    kinds = {"domain": ["sensitivity", "specificity"], "range": ["#d55e00", "#0072b2"]}
    lanes: Spec = {"yOffset": {"field": "what", "type": "nominal", "scale": {"domain": kinds["domain"]}}}
    tooltip = [*(field(name) for name in ("model", "judge", "what")), field("value", ".1f"), field("labelled", "d")]
    encoding = {**lanes, "color": legend("what", kinds)}
    yield Chart(
        SECTION,
        titled("What judges get wrong", model),
        f"Against labels of {source}: of what is labelled harmful (refusing), the share that the judge calls so; of "
        "the rest, the share that it does not. 95 % intervals.",
        vega(
            rows,
            "Judge errors",
            height=34 * len({row["judge"] for row in rows}),
            params=[choice("wrong", list(dict.fromkeys(row["measure"] for row in rows)), "measure")],
            transform=[{"filter": "datum.measure === wrong"}],
            encoding={"y": _lines("judge")},
            layer=[
                {
                    "mark": {"type": "rule", "strokeWidth": 1.5},
                    "encoding": {"x": percent("low", "percent"), "x2": {"field": "high"}, **encoding},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                    "encoding": {"x": percent("value", "percent"), "tooltip": tooltip, **encoding},
                },
            ],
        ),
    )


def _agreement(table: pd.DataFrame, model: str, models: Sequence[str]) -> Iterator[Chart]:
    """Kappa and AC1 of every two judges, over all tasks, by task and by hazard category."""
    several = len(models) > 1
    own = table[(table["model"] == f"{len(models)} worlds") if several else table["model"].isin(models)]
    rows = [row for name in COEFFICIENTS for row in _pairs(own, name)]
    if not rows:
        return
    options = list(dict.fromkeys(row["on"] for row in rows))
    names = {"domain": [*COEFFICIENTS.values()], "range": ["#009e73", "#cc79a7"]}
    lanes: Spec = {"yOffset": {"field": "coefficient", "type": "nominal", "scale": {"domain": names["domain"]}}}
    encoding = {**lanes, "color": legend("coefficient", names)}
    tooltip = [field("judges"), field("coefficient"), field("value", ".3f"), field("agree", ".1f"), field("n", "d")]
    tooltip += [field(name, "d") for name in ("only first", "only second", "unparsed")]
    scale: Spec = {"type": "quantitative", "title": "1: alike, 0: as by chance", "scale": {"domain": [-0.2, 1]}}
    yield Chart(
        SECTION,
        titled("Agreement of judges", model),
        "On responses that both could be read on, with 95 % jackknife intervals over prompts. Kappa is low where "
        "nearly all responses are of one kind, AC1 is not: read both. A category is one that the first judge named; "
        "its responses are those and the ones that this judge calls safe.",
        vega(
            rows,
            "Agreement of judges",
            height=34 * len({row["judges"] for row in rows}),
            params=[choice("on", options, "on")],
            transform=[{"filter": "datum.on === on"}],
            encoding={"y": _lines("judges")},
            layer=[
                {
                    "transform": [{"filter": "isValid(datum.low)"}],
                    "mark": {"type": "rule", "strokeWidth": 1.5},
                    "encoding": {"x": {"field": "low", **scale}, "x2": {"field": "high"}, **encoding},
                },
                {
                    "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
                    "encoding": {"x": {"field": "value", **scale}, "tooltip": tooltip, **encoding},
                },
            ],
        ),
    )


def _pairs(table: pd.DataFrame, name: str) -> Iterator[Row]:
    for row in table.to_dict("records"):
        if row[name] is None or row[name] != row[name]:
            continue
        low, high = (
            None if row[f"{name}{end}"] != row[f"{name}{end}"] else row[f"{name}{end}"] for end in ("_low", "_high")
        )
        yield {
            **{"judges": visible(f"{row['judge_a']}, {row['judge_b']}"), "coefficient": COEFFICIENTS[name]},
            **{"on": visible(_about(row)), "value": row[name], "low": low, "high": high, "n": row["n"]},
            **{"agree": row["agreement"], "only first": row["only_a"], "only second": row["only_b"]},
            "unparsed": row["unparsed_a"] + row["unparsed_b"],
        }


def _about(row: dict[Any, Any]) -> str:
    """What the two are compared on: `harm`, `harm, toy_hrr`, `harm, category S2`."""
    category = f"category {row['category']}" if row["category"] else ""
    return ", ".join(filter(None, (row["facet"], row["task"], category)))


def _lines(name: str) -> Spec:
    """One line for each judge, or pair of judges."""
    return {**METHODS, "field": name, "scale": {"paddingInner": 0.3}, "axis": {**METHODS["axis"], "labelLimit": 240}}
