"""How published numbers beside measured ones are put before a reader, in the terminal and on the page."""

from __future__ import annotations

from math import floor, log10
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .display import EMPTY, Row, records
from .text import one_line

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, JustifyMethod

__all__ = ["HEADERS", "LEFT", "NOTE", "TITLE", "counts", "lines", "render"]

TITLE = "Published numbers beside measured ones"
NOTE = (
    "The two were not measured alike: published numbers are of other fine-tunings, judges and hardware, and may be of "
    "other models, prompts and ways to count. Inside says that the published value, as it was rounded, lies in the "
    "95 % interval of what was measured here; it is no test that the two are the same. Intervals are of prompts: "
    "fine-tunings differ by more."
)
HEADERS = ("published as", "published", "measured as", "measured [95 %]", "difference", "inside")
LEFT = ("published as", "measured as")
"""Headers of columns of text."""
SHOWN = 40
"""Lines in the terminal; published.csv and report.html have all."""
_UNITS = {"percent_prompts": "%", "percent": "%"}


def lines(frame: pd.DataFrame) -> list[tuple[str, ...]]:
    """The cells of HEADERS for each line of `beside.beside`; names are on one line, and nothing in them acts."""
    return [_cells(row) for row in records(frame)]


def _cells(row: Row) -> tuple[str, ...]:
    decimals = max(0, -floor(log10(2 * row["rounding"]) + 1e-9))
    seed = "" if row["seed"] is None else f", seed {row['seed']}"
    return (
        one_line(f"{row['table']}: {row['group']} / {row['row']} / {row['column']}"),
        one_line(f"{row['published']:.{decimals}f} {_UNITS.get(row['unit'], row['unit'])}"),
        one_line(f"{row['model']} / {row['method']}{seed}: {row['measured_as']}"),
        _measured(row),
        EMPTY if row["difference"] is None else f"{row['difference']:+.2f}",
        row["inside"] or EMPTY,
    )


def _measured(row: Row) -> str:
    if row["measured"] is None:
        return EMPTY
    ends = "" if row["measured_low"] is None else f" [{row['measured_low']:.1f}, {row['measured_high']:.1f}]"
    return f"{row['measured']:.{1 if ends else 2}f}{ends}"


def counts(frame: pd.DataFrame) -> str:
    """How many of the published values lie inside, how many cannot be said to, and how many have nothing beside."""
    inside = frame["inside"].value_counts()
    yes, no, none = int(inside.get("yes", 0)), int(inside.get("no", 0)), int(frame["measured"].isna().sum())
    rest = {"without an interval": len(frame) - yes - no - none, "with nothing measured": none}
    said = [f"{number} {what}" for what, number in rest.items() if number]
    return f"Inside the interval: {yes} of {yes + no}" + (f"; beside these {' and '.join(said)}." if said else ".")


def render(frame: pd.DataFrame, console: Console) -> None:
    """Prints the first SHOWN lines, with what must be known to read them."""
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        title=Text(TITLE, style="bold"),
        title_justify="left",
    )
    for header in HEADERS:
        # Text, not markup: brackets in names and headers are shown as they are.
        # Names may be folded over lines; numbers may not.
        side: JustifyMethod = "left" if header in LEFT else "right"
        table.add_column(Text(header), justify=side, overflow="fold", no_wrap=header not in LEFT)
    found = lines(frame)
    for cells in found[:SHOWN]:
        table.add_row(*map(Text, cells))
    console.print(table)
    notes = [counts(frame), NOTE]
    if len(found) > SHOWN:
        notes.insert(0, f"{len(found) - SHOWN} more lines are in published.csv and in report.html.")
    for note in notes:
        console.print(Text(note, style="dim"))
