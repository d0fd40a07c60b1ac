"""The page of `geometry correlate`: table 1 and figures 1, 7 and 10 of the paper, with controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..html.embed import visible
from ..html.specs import Chart, Row, Spec, choice, field, legend, measured, vega
from .page import PageTable, number, write_page

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAGE", "correlate_charts", "correlate_page"]

PAGE = "correlate.html"
BASE, TUNED, RESTORED, UNRELATED = "base", "tuned", "restored", "unrelated"
ITERATION = "iteration "
PADS = "prompt+pads"
LEAD = (
    "Losses are cross-entropies in nats per token, example by example; padding is masked, and all models read the same "
    "tokens.",
    "r says how alike two models rank the examples. Read it beside its controls: what is left given length, what other "
    "rows of the same length have, what a model that has nothing to do with the base has.",
)
MARKS = {
    "pearson": "Pearson r",
    "spearman": "Spearman r",
    "partial": "r given length",
    "matched": "control: other rows of the same length",
    "shuffled": "control: shuffled rows",
    UNRELATED: "control: an unrelated model",
}
COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#d55e00", "#999999", "#cc79a7")
"""Of Okabe and Ito."""


def correlate_page(
    losses: pd.DataFrame,
    means: pd.DataFrame,
    correlations: pd.DataFrame,
    facts: Mapping[str, Any],
    folder: Path,
    library_cache: Path,
) -> Path:
    """Writes correlate.html into a folder and returns its path.

    Args:
        losses: set, target, row, tokens, model, loss.
        means: as `restore.geometry.tables.means` makes them.
        correlations: as `restore.geometry.tables.correlations` makes them.
        facts: settings and digests.
        folder: where it goes.
        library_cache: where the charts' library is kept.

    Raises:
        InputError: it cannot be written.
    """
    charts = list(correlate_charts(losses, means, correlations))
    title = "How alike losses are before and after fine-tuning"
    write_page(folder / PAGE, title, LEAD, charts, [_table(correlations)], facts, library_cache)
    return folder / PAGE


def correlate_charts(losses: pd.DataFrame, means: pd.DataFrame, correlations: pd.DataFrame) -> Iterator[Chart]:
    """All charts that the tables have data for."""
    yield _means(means)
    yield _coefficients(correlations)
    yield _scatter(losses)
    if correlations["model"].str.startswith(ITERATION).any():
        yield _path(correlations)


def _where(row: Mapping[Any, Any]) -> str:
    return visible(f"{row['set']}, {row['target']}")


def _lines(names: list[str], each: int) -> int:
    return each * len(dict.fromkeys(names))


def _means(means: pd.DataFrame) -> Chart:
    own = means[~means["model"].str.startswith(ITERATION) & (means["target"] != PADS)]
    rows = [
        {"where": _where(row), "model": visible(row["model"]), **{k: row[k] for k in ("mean", "n", "tokens")}}
        | {name: row[name] if row[name] == row[name] else row["mean"] for name in ("low", "high")}
        for row in own.to_dict("records")
    ]
    models = list(dict.fromkeys(row["model"] for row in rows))
    lane: Spec = {"yOffset": {"field": "model", "type": "nominal", "scale": {"domain": models}}}
    tooltip = [field("where"), field("model"), *(field(k, ".4g") for k in ("mean", "low", "high", "n", "tokens"))]
    x = {"field": "mean", "type": "quantitative", "title": "mean loss, nats per token"}
    spec = vega(
        rows,
        "Mean losses",
        height=_lines([row["where"] for row in rows], 12 + 9 * len(models)),
        encoding={"y": _axis("where"), **lane},
        layer=[
            {
                "mark": {"type": "bar"},
                "encoding": {"x": x, "color": legend("model", {"domain": models}), "tooltip": tooltip},
            },
            {"mark": "rule", "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}},
        ],
    )
    caption = "Figures 1 and 10 of the paper. The line is the 95 % interval of the mean over examples."
    return Chart("Losses", "Mean loss of each model", caption, spec)


def _axis(name: str) -> Spec:
    return {
        "field": name, "type": "nominal", "sort": None, "title": None,
        "axis": {"labelLimit": 220, "ticks": False, "domain": False}, "scale": {"paddingInner": 0.3},
    }  # fmt: skip


def _coefficients(correlations: pd.DataFrame) -> Chart:
    models = [name for name in dict.fromkeys(correlations["model"]) if name != UNRELATED] or [UNRELATED]
    apart = {_where(row): row for row in correlations[correlations["model"] == UNRELATED].to_dict("records")}
    rows: list[Row] = []
    for row in correlations[correlations["model"].isin(models)].to_dict("records"):
        for name, kind in MARKS.items():
            source, own = (apart.get(_where(row)), "pearson") if name == UNRELATED else (row, name)
            if source is not None and source[own] == source[own]:
                ends = {"r": source[own], "low": source[f"{own}_low"], "high": source[f"{own}_high"]}
                rows.append(
                    {"where": _where(row), "model": visible(row["model"]), "kind": kind, "n": source["n"], **ends}
                )
    kinds = [kind for kind in MARKS.values() if any(row["kind"] == kind for row in rows)]
    scale = {
        "domain": kinds,
        "range": [colour for kind, colour in zip(MARKS.values(), COLOURS, strict=True) if kind in kinds],
    }
    lane: Spec = {
        "yOffset": {"field": "kind", "type": "nominal", "scale": {"domain": kinds}},
        "color": legend("kind", scale),
    }
    tooltip = [field("where"), field("kind"), *(field(k, ".3f") for k in ("r", "low", "high")), field("n", "d")]
    axis = {"type": "quantitative", "title": "correlation with the base's losses", "scale": {"domain": [-1, 1]}}
    spec = vega(
        rows,
        "Correlations with the base's losses",
        height=_lines([row["where"] for row in rows], 14 + 8 * len(kinds)),
        params=[choice("compared", models, "model")],
        transform=[{"filter": "datum.model === compared"}],
        encoding={"y": _axis("where")},
        layer=[
            {
                "mark": {"type": "rule", "strokeWidth": 1.5},
                "encoding": {"x": {"field": "low", **axis}, "x2": {"field": "high"}, **lane},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1},
                "encoding": {"x": {"field": "r", **axis}, "tooltip": tooltip, **lane},
            },
        ],
    )
    caption = (
        "Table 1 of the paper, with 95 % intervals; of controls by pairing, the range of 95 % of draws. An r that "
        "its controls have too says nothing of fine-tuning; one that is left given length, and that neither other rows "
        "of the same length nor an unrelated model have, does."
    )
    return Chart("Correlations", "Correlation with the base, and its controls", caption, spec)


def _scatter(losses: pd.DataFrame) -> Chart:
    own = losses[~losses["model"].str.startswith(ITERATION)]
    rows: list[Row] = []
    for (name, target), group in own.groupby(["set", "target"], sort=False):
        table = group.pivot(index="row", columns="model", values="loss")
        tokens = group.drop_duplicates("row").set_index("row")["tokens"]
        about = {"where": _where({"set": name, "target": target})}
        for model in [m for m in dict.fromkeys(group["model"]) if m != BASE]:
            both = table[[BASE, model]].dropna()
            for place, x, y in zip(both.index, both[BASE], both[model], strict=True):
                point = {
                    "x": round(float(x), 4),
                    "y": round(float(y), 4),
                    "row": int(place),
                    "tokens": int(tokens[place]),
                }
                rows.append({**about, "model": visible(str(model)), "kind": "row", **point})
            if len(both):
                low, high = float(both.min().min()), float(both.max().max())
                rows += [{**about, "model": visible(str(model)), "kind": "same", "x": v, "y": v} for v in (low, high)]
    sets = list(dict.fromkeys(row["where"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    place = {"x": measured("x", "base, nats per token"), "y": measured("y", "the chosen model, nats per token")}
    spec = vega(
        rows,
        "Losses of two models on the same rows",
        height=340,
        params=[choice("set", sets, "rows"), choice("other", models, "model")],
        transform=[{"filter": "datum.where === set && datum.model === other"}],
        layer=[
            {
                "transform": [{"filter": "datum.kind === 'same'"}],
                "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.6},
                "encoding": place,
            },
            {
                "transform": [{"filter": "datum.kind === 'row'"}],
                "mark": {"type": "point", "filled": True, "size": 35, "opacity": 0.7},
                "encoding": {
                    **place,
                    "color": {
                        "field": "tokens",
                        "type": "quantitative",
                        "title": "tokens",
                        "scale": {"scheme": "viridis"},
                    },
                    "tooltip": [field("row", "d"), field("tokens", "d"), field("x", ".4g"), field("y", ".4g")],
                },
            },
        ],
    )
    caption = "A dot is an example, its colour its length. On the dashed line both models have the same loss."
    return Chart("Examples", "Losses example by example", caption, spec)


def _path(correlations: pd.DataFrame) -> Chart:
    rows: list[Row] = []
    for row in correlations.to_dict("records"):
        step = _step(str(row["model"]))
        if step is not None and row["pearson"] == row["pearson"]:
            value = {"r": row["pearson"], "low": row["pearson_low"], "high": row["pearson_high"]}
            rows.append({"step": step, "set": visible(row["set"]), "target": row["target"], "n": row["n"], **value})
    targets = [name for name in dict.fromkeys(row["target"] for row in rows) if name != PADS]
    place = {
        "x": {
            "field": "step",
            "type": "quantitative",
            "title": "accepted updates",
            "axis": {"tickMinStep": 1, "format": "d"},
        }
    }
    y = {"type": "quantitative", "title": "Pearson r with the base", "scale": {"zero": False}}
    spec = vega(
        rows,
        "Correlation along the restoration",
        height=300,
        params=[choice("target", targets, "target")],
        transform=[{"filter": "datum.target === target"}],
        encoding=place,
        layer=[
            {
                "mark": {"type": "area", "opacity": 0.12},
                "encoding": {"y": {"field": "low", **y}, "y2": {"field": "high"}, "color": legend("set")},
            },
            {
                "mark": {"type": "line", "point": True},
                "encoding": {
                    "y": {"field": "r", **y}, "color": legend("set"),
                    "tooltip": [field("set"), field("step", "d"), *(field(k, ".3f") for k in ("r", "low", "high"))],
                },
            },
        ],
    )  # fmt: skip
    caption = "Figure 7 of the paper: from the tuned model (0) through each update. Bands are 95 % intervals."
    return Chart("Restoration", "Correlation along the restoration's iterations", caption, spec)


def _step(model: str) -> int | None:
    """Accepted updates that led to a model of the path; the restored model is its last iteration."""
    if model == TUNED:
        return 0
    return int(model.removeprefix(ITERATION)) if model.startswith(ITERATION) else None


def _table(correlations: pd.DataFrame) -> PageTable:
    names = ("pearson", "spearman", "partial", "sums", "matched", "shuffled")
    heads = ["set", "target", "model", "n", "r", "Spearman", "given length", "of sums", "same length", "shuffled"]
    rows = [
        [*(str(row[name]) for name in ("set", "target", "model", "n")), *(_cell(row, name) for name in names)]
        for row in correlations.to_dict("records")
    ]
    caption = (
        "Pearson and Spearman r with the base's losses, r given length, r of losses summed over tokens instead of "
        "averaged, and the controls: pairs of rows of the same length, shuffled pairs. In brackets 95 %."
    )
    return PageTable("Correlations", caption, heads, rows, left=3)


def _cell(row: Mapping[Any, Any], name: str) -> str:
    if row[name] != row[name]:
        return "-"
    return f"{number(row[name])} [{number(row[f'{name}_low'])}, {number(row[f'{name}_high'])}]"
