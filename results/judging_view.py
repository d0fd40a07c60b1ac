"""Judges in the terminal: rates by judge, their agreement, and where they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .display import EMPTY

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["interval", "print_agreement", "print_judges", "print_rates"]

SHOWN = 3
"""Disagreements named for each pair of judges."""
ROWS = 40
"""More rows than this are not printed."""
CORRECTED_KEY = (
    "corrected: for the errors of the judge that decides, by the labels on some of the row's own responses "
    "(prediction-powered): right whatever the errors. Rogan-Gladen: by its errors on the labelled responses of all "
    "rows, taken to be the same in each: narrower, and wrong where they are not. Both intervals hold the sampling "
    "error of the labels."
)
AGREEMENT_KEY = (
    "Agreement: responses of which both judges say the same, percent of those that both could be read on (ends: "
    "unparsed counted as disagreement, as agreement). kappa (Cohen) and AC1 (Gwet) take chance into account; 95 % "
    "jackknife over prompts, none where nothing varies. kappa is low where nearly all responses are of one kind; AC1 "
    "is not."
)


def interval(row: Any, name: str, decimals: int = 1) -> str:
    """`12.5 [10.0, 15.1]` of a row's columns name, name_low and name_high; without ends where there are none."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if _absent(value):
        return EMPTY
    ends = "" if _absent(low) else f" [{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{value:.{decimals}f}{ends}"


def _absent(value: Any) -> bool:
    return value is None or value != value


def print_judges(rates: pd.DataFrame, errors: pd.DataFrame, console: Console) -> None:
    """Prints HRR as each judge sees it, corrected where there are labels; nothing of one judge without labels."""
    own = rates[rates["measure"] == "hrr"]
    judges = list(dict.fromkeys(own["judge"]))
    corrected = own["labels"].notna().any()
    if not len(own) or (len(judges) == 1 and not corrected):
        return
    rows = own.groupby(["model", "method", "seed"], sort=False)
    console.print(Text("HRR as each judge sees it, percent [95 %]", style="bold"))
    if rows.ngroups > ROWS:
        console.print(Text(f"{rows.ngroups} rows: see judges.csv."))
    else:
        console.print(_by_judge(rows, judges, bool(corrected)))
    for line in _errors(errors):
        console.print(Text(line), soft_wrap=True)
    if corrected:
        console.print(Text(CORRECTED_KEY, style="dim"))


def _by_judge(rows: Any, judges: Sequence[str], corrected: bool) -> Table:
    """A line per row of the leaderboard: its rate by each judge, and corrected for the deciding one."""
    groups = [(key, group.set_index("judge")) for key, group in rows]
    several = [place for place in (0, 2) if len({key[place] for key, _ in groups}) > 1]
    heads = [*(("model", "method", "seed")[place] for place in several), "method", *judges]
    table = _table([*heads, *(["labelled", "corrected", "Rogan-Gladen"] if corrected else [])], left=len(several) + 1)
    for key, group in groups:
        first = next(iter(group[group["decides"]].to_dict("records")), None)
        cells = [*(str(key[place]) for place in several), str(key[1])]
        cells += [interval(group.loc[judge], "rate") if judge in group.index else EMPTY for judge in judges]
        if corrected:
            labelled = EMPTY if first is None or _absent(first["labels"]) else str(first["labelled"])
            shown = [EMPTY if first is None else interval(first, name) for name in ("corrected", "rogan_gladen")]
            cells += [labelled, *shown]
        table.add_row(*map(Text, cells))
    return table


def _errors(errors: pd.DataFrame) -> Sequence[str]:
    """The judges' errors on harmful requests, a line each."""
    own = errors[errors["measure"] == "hrr"]
    several = own["model"].nunique() > 1
    return [
        f"{str(row['model']) + ': ' if several else ''}{row['judge']} against {row['labelled']} labels of "
        f"{row['labels']} ({row['yes']} harmful; {row['exchanges']} different exchanges): sensitivity "
        f"{interval(row, 'sensitivity')}, specificity {interval(row, 'specificity')}"
        for row in own.to_dict("records")
    ]


def print_rates(rates: pd.DataFrame, console: Console) -> None:
    """Prints what each judge counted in lm-eval's samples."""
    table = _table(["task", "model", "judge", "counted", "n", "percent [95 %]", "unparsed"], left=4)
    for row in rates.to_dict("records"):
        share = f"{row['rate']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        table.add_row(
            *(Text(str(row[name])) for name in ("task", "model", "judge", "counted", "n")), share, str(row["unparsed"])
        )
    console.print(table)
    line = "Percent of all n, Wilson 95 %: what is unparsed is left out at the low end and counted at the high end."
    console.print(Text(line, style="dim"))


def print_agreement(agreement: pd.DataFrame, differ: pd.DataFrame, console: Console) -> None:
    """Prints the agreement of every two judges over all tasks, and where they disagree first; nothing of one judge."""
    whole = agreement[(agreement["task"] == "") & (agreement["category"] == "")]
    if not len(whole):
        return
    heads = ["judges", "on", "n", "agree", "kappa [95 %]", "AC1 [95 %]", "only first", "only second", "unparsed"]
    several = whole["model"].nunique() > 1
    table = _table([*(["model"] if several else []), *heads], left=2 + several)
    for row in whole.to_dict("records"):
        cells = [row["model"]] if several else []
        cells += [f"{row['judge_a']}, {row['judge_b']}", row["facet"], str(row["n"]), _agree(row)]
        cells += [interval(row, "kappa", 2), interval(row, "ac1", 2), str(row["only_a"]), str(row["only_b"])]
        table.add_row(*map(Text, [*cells, f"{row['unparsed_a']}, {row['unparsed_b']}"]))
    console.print(Text("Agreement of judges", style="bold"))
    console.print(table)
    for line in _first(differ):
        console.print(Text(line), soft_wrap=True)
    console.print(Text(AGREEMENT_KEY, style="dim"))


def _agree(row: Any) -> str:
    """The share, with its ends where something was unparsed."""
    return interval(row, "agreement") if row["agreement_low"] != row["agreement_high"] else f"{row['agreement']:.1f}"


def _first(differ: pd.DataFrame) -> Sequence[str]:
    """The first disagreements of each pair, by method and document: texts are in the report."""
    lines = []
    for (a, b), group in differ.groupby(["judge_a", "judge_b"], sort=False):
        named = [
            f"{row['method']} {row['task']} #{row['doc_id']}: {row['verdict_a']} | {row['verdict_b']}"
            for row in group.head(SHOWN).to_dict("records")
        ]
        more = f"; and {len(group) - SHOWN} more" if len(group) > SHOWN else ""
        lines.append(f"{a} | {b} disagree: {'; '.join(named)}{more}")
    return lines


def _table(heads: Sequence[str], left: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if place < left else "right", overflow="fold")
    return table
