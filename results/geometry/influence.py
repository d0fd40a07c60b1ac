"""The page of `geometry influence`: the examples that drive a restoration's first update, and the rows that pay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..html.specs import Chart, Row, Spec, field, legend, measured, vega
from .page import PageTable, number, write_page

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PAGE", "TERMS", "half_of_the_update", "influence_charts", "influence_page"]

PAGE = "influence.html"
TERMS = {
    "forget_loss": "answers to harmful prompts",
    "base_divergence": "refusals of harmful prompts",
    "retain_batch_loss": "rows of the task",
}
"""Losses that an update descends, by their names in the trace."""
COLOURS = {"forget_loss": "#d55e00", "base_divergence": "#0072b2", "retain_batch_loss": "#009e73"}
"""Of Okabe and Ito."""
LEAD = (
    "The first update of a restoration, taken apart: an example's share is what its gradient adds to g'H^-1 g, the "
    "update's first-order gain, in the curvature that the restoration itself used. Shares sum to 100 %; a negative one "
    "pulls against the update.",
    "What the update costs rows of the task that it must respect: measured, and to first order. Prompts that may be "
    "harmful are folded.",
)


def influence_page(
    examples: pd.DataFrame, costs: pd.DataFrame, facts: Mapping[str, Any], folder: Path, library_cache: Path
) -> Path:
    """Writes influence.html into a folder and returns its path.

    Args:
        examples: rank, term, set, row, tokens, loss, share, turn, gradient_norm, prompt.
        costs: rank, row, tokens, before, after, cost, first_order, prompt.
        facts: settings and digests.
        folder: where it goes.
        library_cache: where the charts' library is kept.

    Raises:
        InputError: it cannot be written.
    """
    charts = list(influence_charts(examples, costs))
    title = "Which examples drive the restoration, and which pay for it"
    write_page(folder / PAGE, title, LEAD, charts, [_examples(examples), _costs(costs)], facts, library_cache)
    return folder / PAGE


def influence_charts(examples: pd.DataFrame, costs: pd.DataFrame) -> Iterator[Chart]:
    """Shares by rank, how few examples make the update, and costs."""
    yield _shares(examples)
    yield _cumulated(examples)
    yield _scatter(costs)


def half_of_the_update(examples: pd.DataFrame) -> int:
    """How many examples, from the first, come to half of the update."""
    return int((examples["share"].cumsum() < 0.5).sum()) + 1


def _colour(examples: pd.DataFrame) -> Spec:
    names = [name for name in TERMS if name in set(examples["term"])]
    return legend("of", {"domain": [TERMS[name] for name in names], "range": [COLOURS[name] for name in names]})


def _rows(examples: pd.DataFrame) -> list[Row]:
    return [
        {
            **{name: row[name] for name in ("rank", "set", "row", "tokens")},
            **{"of": TERMS[row["term"]], "share": round(100 * row["share"], 4), "loss": round(row["loss"], 4)},
            "turn": None if row["turn"] != row["turn"] else round(row["turn"], 3),
        }
        for row in examples.to_dict("records")
    ]


def _shares(examples: pd.DataFrame) -> Chart:
    spec = vega(
        _rows(examples),
        "Shares of the update by example",
        height=300,
        mark={"type": "bar"},
        encoding={
            "x": {
                "field": "rank", "type": "ordinal", "title": "examples, by share", "scale": {"paddingInner": 0.15},
                "axis": {"labels": False, "ticks": False},
            },
            "y": {"field": "share", "type": "quantitative", "title": "share of the update, percent"},
            "color": _colour(examples),
            "tooltip": [
                field("set"), field("row", "d"), field("of"), field("share", ".2f"), field("turn", ".2f"),
                field("tokens", "d"), field("loss", ".4g"),
            ],
        },
    )  # fmt: skip
    caption = (
        "A bar is an example; below 0 it pulls against the update. The tooltip tells its row, and by how many degrees "
        "the update turns without it."
    )
    return Chart("Examples", "Shares of the update", caption, spec)


def _cumulated(examples: pd.DataFrame) -> Chart:
    total = (100 * examples["share"].cumsum()).tolist()
    rows = [{"n": 0, "sum": 0.0}, *({"n": n, "sum": round(value, 4)} for n, value in enumerate(total, start=1))]
    even = [{"n": 0, "even": 0.0}, {"n": len(total), "even": 100.0}]
    x = {"field": "n", "type": "quantitative", "title": "examples, largest shares first", "axis": {"tickMinStep": 1}}
    title = "percent of the update"
    spec = vega(
        [*rows, *even],
        "How many examples make the update",
        height=300,
        encoding={"x": x},
        layer=[
            {
                "transform": [{"filter": "isValid(datum.even)"}],
                "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.6},
                "encoding": {"y": {"field": "even", "type": "quantitative", "title": title}},
            },
            {
                "transform": [{"filter": "isValid(datum.sum)"}],
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {
                    "y": {"field": "sum", "type": "quantitative", "title": title},
                    "tooltip": [field("n", "d"), field("sum", ".1f")],
                },
            },
        ],
    )
    caption = (
        f"The first {half_of_the_update(examples)} of {len(examples)} examples make half of it. Dashed: if all had the "
        "same share. Above 100 are shares that negative ones take back."
    )
    return Chart("Examples", "How many examples make the update", caption, spec)


def _scatter(costs: pd.DataFrame) -> Chart:
    rows: list[Row] = [
        {
            **{name: row[name] for name in ("row", "tokens")},
            **{name: round(row[name], 6) for name in ("first_order", "cost", "before", "after")},
        }
        for row in costs.to_dict("records")
    ]
    low, high = (float(end) for end in (costs["first_order"].min(), costs["first_order"].max()))
    line = [{"first_order": value, "same": value} for value in (low, high)]
    x = measured("first_order", "expected to first order, nats per token")
    title = "measured, nats per token"
    spec = vega(
        [*rows, *line],
        "What the update costs rows of the task",
        height=320,
        layer=[
            {
                "transform": [{"filter": "isValid(datum.same)"}],
                "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.6},
                "encoding": {"x": x, "y": measured("same", title)},
            },
            {
                "transform": [{"filter": "isValid(datum.cost)"}],
                "mark": {"type": "point", "filled": True, "size": 40, "opacity": 0.75, "color": "#009e73"},
                "encoding": {
                    "x": x,
                    "y": measured("cost", title),
                    "tooltip": [field("row", "d"), *(field(name, ".4g") for name in ("cost", "before", "after"))],
                },
            },
        ],
    )
    caption = (
        "Held-out rows of the task. On the dashed line a loss rises as its gradient says; far above it, the step was "
        "too long for a first order to tell."
    )
    return Chart("Costs", "What the update costs rows of the task", caption, spec)


def _examples(examples: pd.DataFrame) -> PageTable:
    rows = [
        [
            str(row["rank"]), TERMS[row["term"]], f"{row['set']} {row['row']}", number(100 * row["share"], 2),
            number(row["turn"], 2), number(row["loss"]), str(row["tokens"]), str(row["prompt"]),
        ]
        for row in examples.to_dict("records")
    ]  # fmt: skip
    heads = ["rank", "part of", "row", "share %", "turn °", "loss", "tokens", "prompt"]
    caption = (
        "All examples of the losses that the update descends. Turn: by how many degrees the update turns where the "
        "example is left out, the curvature as it is. Loss in nats per token; of refusals, from the base model's."
    )
    return PageTable("Examples that drive it", caption, heads, rows, left=3, folded=7)


def _costs(costs: pd.DataFrame) -> PageTable:
    rows = [
        [
            str(row["rank"]), f"retain_check {row['row']}",
            *(number(row[name], 4) for name in ("cost", "first_order", "before", "after")),
            str(row["tokens"]), str(row["prompt"]),
        ]
        for row in costs.to_dict("records")
    ]  # fmt: skip
    heads = ["rank", "row", "cost", "first order", "before", "after", "tokens", "prompt"]
    caption = "Held-out rows of the task, in nats per token: what each loss rose by, and what its gradient said."
    return PageTable("Rows that pay", caption, heads, rows, left=2, folded=7)
