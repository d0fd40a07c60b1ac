"""The leaderboard in the terminal, as wide as the terminal is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from .display import Column, displayed, failures, heading, records, remarks

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, JustifyMethod

__all__ = ["leaderboard_table", "render"]

KEY = (
    "Rates in percent; HRR: harmful responses, with the Wilson 95 % interval. Unparsed verdicts are never counted as "
    "safe (low end: as safe, high end: as harmful). -: no value. p: * below 0.05, ** 0.01, *** 0.001."
)
TIGHT = 100
"""Terminals narrower than this get one blank between columns."""
WIDE = 100_000
"""More columns than any table takes: the width at which a table shows its natural one."""


def leaderboard_table(frame: pd.DataFrame, leave_out: Collection[str] = (), tight: bool = False) -> Table:
    """The leaderboard as a rich table; failed rows are red, with their reasons below.

    Nothing is marked as best: the table alone does not support a ranking.

    Args:
        frame: the leaderboard.
        leave_out: headers of columns not to show.
        tight: one blank between columns instead of two.
    """
    columns = [column for column in displayed(frame, "terminal") if column.header not in leave_out]
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 0 if tight else 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        title=Text(heading(frame), style="bold"),
        title_justify="left",
        caption=_reasons(frame),
        caption_justify="left",
    )
    for column in columns:
        # Names may be folded over lines; an interval may not.
        justify: JustifyMethod = "left" if column.left else "right"
        table.add_column(_folded(column), justify=justify, overflow="fold", no_wrap=column.source == "hrr")
    for row in records(frame):
        style = None if row["status"] == "ok" else "red"
        # Text, not markup: a name with brackets in it is shown as it is.
        table.add_row(*(Text(column.cell(row)) for column in columns), style=style)
    return table


def render(frame: pd.DataFrame, console: Console, notes: Sequence[str] = ()) -> None:
    """Prints the leaderboard; where it does not fit, the least important columns go, and a note names them.

    The harmful response rate never goes, nor refusals, incoherent text, over-refusal and utility, without which it
    cannot be read.

    Args:
        frame: the leaderboard.
        console: where to print; its width decides what fits.
        notes: sentences about this run, printed below the table.
    """
    left_out: list[str] = []
    droppable = sorted((c for c in displayed(frame, "terminal") if c.drop), key=lambda column: column.drop)
    tight = console.width < TIGHT
    while droppable and _natural_width(leaderboard_table(frame, left_out, tight), console) > console.width:
        left_out.append(droppable.pop(0).header)
    console.print(leaderboard_table(frame, left_out, tight))
    lines = [KEY, *remarks(frame), *notes]
    if left_out:
        lines.append(f"Left out at this width: {', '.join(left_out)}; leaderboard.csv has them.")
    for line in lines:
        console.print(Text(line, style="dim"))


def _natural_width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=WIDE), table).maximum


def _folded(column: Column) -> Text:
    """A header over several lines, so that it is no wider than its numbers need."""
    return Text(column.folded or column.header.replace(" ", "\n").replace("_", "_\n"))


def _reasons(frame: pd.DataFrame) -> Text | None:
    lines = [f"{row.which} failed: {row.why}" for row in failures(frame)]
    return Text("\n".join(lines), style="red") if lines else None
