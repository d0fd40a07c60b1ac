"""`safebasin review`: a blind sheet for people, their labels, and what they do not agree on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .shared import StoreOption, add_command, console_of_output

if TYPE_CHECKING:
    from ...results.hierarchy import Estimate
    from ..stages.reviewers import Dispute, Imported, Pair
    from ..stages.reviewing import Exported

__all__ = ["add_to"]

LISTED = 20
"""Disputes that are listed."""
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="Run folder.")]


def export(
    folder: FolderArgument,
    output: Annotated[Path, typer.Option("--output", help="The sheet, .html; the same as CSV goes beside it.")],
    size: Annotated[int, typer.Option("--size", min=1, help="How many responses.")] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides which responses, and their order.")] = 0,
    task: Annotated[
        list[str] | None, typer.Option("--task", help="Judged task; may be repeated (default: those of HRR).")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Writes a sheet."""
    from ..stages.reviewing import export as export_sheet

    _show_exported(export_sheet(folder, output, size, seed, task or (), store), folder, console_of_output())


def import_(
    folder: FolderArgument,
    labels: Annotated[list[Path], typer.Argument(metavar="LABELS...", help="Downloaded labels, or the CSV filled in.")],
    reviewer: Annotated[str, typer.Option("--reviewer", help="Whose labels they are: an id, better than a name.")],
    partial: Annotated[bool, typer.Option("--partial", help="Takes a sheet of which a part is labelled.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replaces labels of the same reviewer.")] = False,
    store: StoreOption = None,
) -> None:
    """Stores labels."""
    from ..stages.reviewers import import_labels

    show(import_labels(folder, labels, reviewer, partial, replace, store), folder, console_of_output())


def settle(
    folder: FolderArgument,
    output: Annotated[Path, typer.Option("--output", help="The sheet, .html; the same as CSV goes beside it.")],
    sheet: Annotated[str | None, typer.Option("--sheet", help="Id (default: the newest with disputes).")] = None,
    store: StoreOption = None,
) -> None:
    """Writes a sheet of disputes."""
    from ..stages.reviewers import settle as settle_sheet

    written = settle_sheet(folder, output, sheet, store)
    console = console_of_output()
    console.print(f"Sheet {written.sheet.id}: {len(written.sheet.items)} responses to settle.", highlight=False)
    _tell_files(written, folder, "settled", console)


def show(found: "Imported", folder: Path, console: Console) -> None:
    """Prints where a sheet stands after an import.

    Args:
        found: what was stored.
        folder: of the run, for commands that are named.
        console: where to.
    """
    about = f"Stored {found.count} labels of '{found.reviewer}'; {found.labelled} of {len(found.sheet.items)} responses"
    console.print(Text(f"{about} of sheet {found.sheet.id} are labelled."), soft_wrap=True)
    console.print(Text(_written(found, folder)), soft_wrap=True)
    if found.pairs:
        console.print(_pairs(found.pairs))
        key = (
            "On the sheet, which holds more hard cases than the run; kappa is low where one label is rare, AC1 is not."
        )
        console.print(Text(key, style="dim"), soft_wrap=True)
    if found.disputes:
        console.print(Text(f"To settle: {len(found.disputes)}", style="bold"))
        for dispute in found.disputes[:LISTED]:
            console.print(Text(f"  {_dispute(dispute)}"), soft_wrap=True)
        if len(found.disputes) > LISTED:
            console.print(Text(f"  and {len(found.disputes) - LISTED} more", style="dim"))
        console.print(Text(f"Next: safebasin review settle {folder} --output settle.html"), soft_wrap=True)


def _written(found: "Imported", folder: Path) -> str:
    from ..stages.labelling import LABELS

    if found.written is None:
        return (
            f"{folder / LABELS} is not written: it was made otherwise, or some kind of response has no label yet, so "
            "that no rate can be estimated."
        )
    open_ = int(found.written["harmful"].isna().sum())
    left = f"; {open_} that are unclear or not settled correct nothing" if open_ else ""
    return f"{folder / LABELS}: {len(found.written)} labelled responses correct the rates of `safebasin report`{left}."


def _show_exported(written: "Exported", folder: Path, console: Console) -> None:
    sheet = written.sheet
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for place, head in enumerate(("stratum", "responses", "on the sheet", "weight")):
        table.add_column(head, justify="left" if place == 0 else "right")
    for name, count in sheet.strata.items():
        drawn = sum(item.stratum == name for item in sheet.items)
        table.add_row(name, str(count), str(drawn), f"{count / drawn:.2f}")
    line = f"Sheet {sheet.id}: {len(sheet.items)} of {sum(sheet.strata.values())} different responses to"
    console.print(Text(f"{line} {', '.join(sheet.tasks)}."), soft_wrap=True)
    console.print(table)
    _tell_files(written, folder, "ID", console)


def _tell_files(written: "Exported", folder: Path, reviewer: str, console: Console) -> None:
    page, table = written.files
    console.print(Text(f"Label on {page} in a browser (it opens from disk), or fill in {table}. Then:"), soft_wrap=True)
    command = f"safebasin review import {folder} labels-{written.sheet.id}.csv --reviewer {reviewer}"
    console.print(Text(f"  {command}"), soft_wrap=True)


def _pairs(found: "Sequence[Pair]") -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    heads = ["reviewers", "both", "alike", "kappa", "AC1", "harmful or not", "kappa [95 %]", "AC1 [95 %]"]
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place == 0 else "right")
    for each in found:
        numbers = [str(each.n), str(each.alike), *("-" if x is None else f"{x:.2f}" for x in (each.kappa, each.ac1))]
        clear = each.harm.both + each.harm.only_a + each.harm.only_b + each.harm.neither
        table.add_row(f"{each.a}, {each.b}", *numbers, str(clear), _interval(each.harm.kappa), _interval(each.harm.ac1))
    return table


def _interval(value: "Estimate | None") -> str:
    """An interval of what does not vary has no ends."""
    if value is None:
        return "-"
    return f"{value.value:.2f}" + (f" [{value.low:.2f}, {value.high:.2f}]" if value.low == value.low else "")


def _dispute(dispute: "Dispute") -> str:
    said = ", ".join(f"{reviewer} {each.label}" for reviewer, each in dispute.said.items())
    return f"#{dispute.number} {dispute.item}: {said}"


def add_to(app: typer.Typer) -> None:
    """Adds the commands; the help of each opens with an example, which the tests run."""
    group = typer.Typer(no_args_is_help=True)
    what = "Writes a blind sheet on which people say what each response is: more of those on which judges may err."
    add_command(group, export, "review export runs/sandbox --output sheet.html --size 40", what)
    what = "Checks and stores what a reviewer said; says how far two reviewers agree, and lists what to settle."
    add_command(group, import_, "review import runs/sandbox labels.csv --reviewer r1", what, "import")
    what = "Writes a sheet of the responses that reviewers label differently; labels on it are final."
    add_command(group, settle, "review settle runs/sandbox --output settle.html", what)
    what = "Human review: a blind sheet out, labels in, agreement of reviewers."
    app.add_typer(group, name="review", help=what, short_help=what)
