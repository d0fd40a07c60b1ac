"""The table of claims on the page and in the terminal: methods as rows, measures as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from .display import EMPTY
from .text import markdown, one_line

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

__all__ = ["notes", "print_replicas", "write_replicas"]

WORDS = {
    "hrr": "HRR",
    "refusal_rate": "whole refusals",
    "incoherent_rate": "incoherent",
    "prefill_asr": "prefill ASR",
    "over_refusal": "over-refusal",
    "under_refusal": "under-refusal",
    "visage": "VISAGE",
    "visage_refused": "VISAGE, refused",
    "eval_loss": "eval loss",
}
"""Measure -> its heading; utility metrics have their own names."""
Rows = Sequence[tuple[str, Mapping[str, Any]]]


def write_replicas(
    table: pd.DataFrame, path: Path, lacking: Mapping[str, Sequence[str]], relapse: pd.DataFrame | None = None
) -> None:
    """Writes the table as CSV at `path`, one row per method and measure, and as Markdown beside it.

    Args:
        table: what `replicas.replicas` made.
        path: the CSV.
        lacking: methods left out -> the replicas that they lack.
        relapse: what `relapse_worlds.relapse_over_worlds` made, for the Markdown.

    Raises:
        InputError: a file cannot be written.
    """
    from .export import csv_text, replace_text

    replace_text(path, csv_text(table))
    blocks = [f"# {_title(table)}"]
    sections = [*_sections(table, markdown), *_relapse(relapse, markdown)]
    blocks += [f"## {heading}\n\n{_markdown(cells)}" for heading, cells in sections]
    absent = {markdown(method): [*map(markdown, places)] for method, places in lacking.items()}
    blocks.append("\n".join(f"- {note}" for note in notes(table, absent, relapse)))
    replace_text(path.with_suffix(".md"), "\n\n".join(blocks) + "\n")


def print_replicas(
    table: pd.DataFrame, console: Console, lacking: Mapping[str, Sequence[str]], relapse: pd.DataFrame | None = None
) -> None:
    """Prints what `write_replicas` writes."""
    console.print(Text(_title(table), style="bold"))
    for heading, cells in [*_sections(table, one_line), *_relapse(relapse, one_line)]:
        shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title_justify="left")
        shown.title = Text(heading)
        for place, name in enumerate(cells[0]):
            shown.add_column(
                Text(one_line(name).replace("_", "_\n")), justify="right" if place else "left", overflow="fold"
            )
        for row in cells[1:]:
            shown.add_row(*(Text(one_line(cell)) for cell in row))
        console.print(shown)
        console.print()
    for note in notes(table, lacking, relapse):
        console.print(Text(note, style="dim"))


def notes(table: pd.DataFrame, lacking: Mapping[str, Sequence[str]], relapse: pd.DataFrame | None = None) -> list[str]:
    """What a reader must know of the figures, and which methods are not among them."""
    worlds = int(table["worlds"].iloc[0])
    found = [
        f"Over worlds: every world is a model of its own, trained from its own seed, and the unit of replication; "
        f"{worlds} worlds, each with {int(table['finetunings'].max())} fine-tunings of every method.",
        "Interval: hierarchical bootstrap 95 %: worlds are drawn, fine-tunings within each, and prompts (the same in "
        "all of them); measures without outcomes per prompt (VISAGE, utility, loss) by the upper two. Percentiles "
        "are widened for few worlds. Where all responses are alike, Wilson with n = prompts.",
        "Worst: the worst single fine-tuning in any world, with its world and seed.",
        "Differences are paired by world, fine-tuning and prompt. p: two-sided sign-flip test over worlds (at least "
        f"{2 / 2**worlds:.2g} with {worlds} worlds), corrected over the methods of one measure (Holm). The CSV has the "
        "uncorrected one, the bootstrap's, and the one corrected over all methods and measures.",
        "Rates in percent, eval loss in nats per token.",
    ]
    if relapse is not None and len(relapse):
        found.append(
            "Relapse: optimizer steps until HRR is half way from the base to lora, by which half of the fine-tunings "
            "of all worlds were back, with the first and the last; later and sooner: worlds in which a method came "
            "back later or sooner than the other, p of the exact sign test over them."
        )
    return found + [
        f"Not shown: {method}, which has no finished row in {'; '.join(missing[:3])}"
        f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}."
        for method, missing in lacking.items()
    ]


def _title(table: pd.DataFrame) -> str:
    return f"Over {table['worlds'].iloc[0]} worlds x {table['finetunings'].max()} fine-tunings"


def _sections(table: pd.DataFrame, shown: Callable[[str], str]) -> list[tuple[str, list[list[str]]]]:
    """(heading, lines of cells, the first being the names of the columns)."""
    sections = [("Mean [95 %]", _cells(table, _interval)), ("Worst", _cells(table, lambda row: _worst(row, shown)))]
    for column, other in (("vs_lora", "lora"), ("vs_reference", str(table["reference"].iloc[0]))):
        tested = table[table[column].notna()]
        if len(tested) and (column == "vs_lora" or other != "lora"):
            heading = f"Difference to {shown(other)} [95 %], p (Holm)"
            sections.append((heading, _cells(tested, lambda row, column=column: _difference(row, column))))
    return sections


def _relapse(table: pd.DataFrame | None, shown: Callable[[str], str]) -> list[tuple[str, list[list[str]]]]:
    """The same of steps to half the drift, a column per fine-tuning."""
    if table is None or not len(table):
        return []
    of_attacks = table.rename(columns={"attack": "measure"})
    sections = [("Relapse: steps to half the drift, median [least, most]", _cells(of_attacks, _steps))]
    for column, other in (("vs_base", "base"), ("vs_reference", str(table["reference"].iloc[0]))):
        tested = of_attacks[table[f"{column}_p"].notna()]
        if len(tested):
            heading = f"Relapse beside {shown(other)}: worlds later / sooner, p (Holm)"
            sections.append((heading, _cells(tested, lambda row, column=column: _later(row, column))))
    return sections


def _cells(table: pd.DataFrame, cell: Any) -> list[list[str]]:
    measures, methods = (list(dict.fromkeys(table[name])) for name in ("measure", "method"))
    found = {(row["method"], row["measure"]): cell(row) for row in table.to_dict("records")}
    lines = [[method, *(found.get((method, measure), EMPTY) for measure in measures)] for method in methods]
    return [["method", *(WORDS.get(measure, measure) for measure in measures)], *lines]


def _decimals(row: Mapping[Any, Any]) -> int:
    return 4 if row["measure"] == "eval_loss" else 1


def _interval(row: Mapping[Any, Any]) -> str:
    places = _decimals(row)
    return f"{row['mean']:.{places}f} [{row['low']:.{places}f}, {row['high']:.{places}f}]"


def _worst(row: Mapping[Any, Any], shown: Callable[[str], str]) -> str:
    world = shown(row["worst_world"].rpartition(":")[2])
    return f"{row['worst']:.{_decimals(row)}f} ({world}, {row['worst_seed']})"


def _difference(row: Mapping[Any, Any], column: str) -> str:
    places = _decimals(row)
    value, low, high = (f"{row[column + end]:+.{places}f}" for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}], {_p(row, column)}"


def _steps(row: Mapping[Any, Any]) -> str:
    return f"{row['median']} [{row['least']}, {row['most']}]"


def _later(row: Mapping[Any, Any], column: str) -> str:
    return f"{row[f'{column}_later']:.0f} / {row[f'{column}_sooner']:.0f}, {_p(row, column)}"


def _p(row: Mapping[Any, Any], column: str) -> str:
    p = row[f"{column}_p_holm"]
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _markdown(cells: list[list[str]]) -> str:
    named = [[markdown(line[0]), *line[1:]] for line in cells[1:]]
    lines = [[*map(markdown, cells[0])], [":--", *["--:"] * (len(cells[0]) - 1)], *named]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
