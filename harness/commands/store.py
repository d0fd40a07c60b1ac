"""safebasin store: whether a store is whole, a copy of it, and what can be saved of a damaged one."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError, listed
from .shared import add_command

__all__ = ["add_to"]

Where = Annotated[Path, typer.Argument(metavar="DIR", help="Run folder, or folder of a store shared between runs.")]


def check(where: Where) -> None:
    """Reads all of a store; 1 where something is wrong."""
    from ..stages.folder import STORE
    from ..store.rescue import found_faults

    found = found_faults(where / STORE)
    if found:
        typer.echo(f"{where / STORE} is damaged:\n{listed(found)}\nThe way out: safebasin store recover {where}")
        raise typer.Exit(1)
    typer.echo(f"{where / STORE} is whole.")


def backup(
    where: Where,
    to: Annotated[Path | None, typer.Option("--to", help="The copy (default: store.backup.sqlite beside it).")] = None,
) -> None:
    """Copies a store into one file, also while a run writes to it."""
    from ..stages.folder import STORE
    from ..store.rescue import back_up

    target = to or where / "store.backup.sqlite"
    if target.is_dir():
        raise InputError(f"--to {target} is a folder. Give the name of the copy, for example {target / STORE}.")
    back_up(where / STORE, target)
    typer.echo(f"{target} is a copy of {where / STORE}. To go back to it: put it in that place.")


def recover(where: Where) -> None:
    """Puts every row that is whole into a new store; the damaged file is kept beside it."""
    from ..stages.folder import STORE
    from ..store.files import locked
    from ..store.rescue import recover as recovered

    with locked(where, wait=False):
        saved, kept = recovered(where / STORE)
    rows = ", ".join(f"{count} {table}" for table, count in saved.items() if count)
    typer.echo(f"Saved: {rows or 'nothing'}. The damaged file is {kept}. `safebasin run` makes what is missing.")


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    group = typer.Typer(help="Checks, copies or recovers the store of a run.", no_args_is_help=True)
    add_command(group, check, "store check runs/sandbox", "Reads all of a store; exit code 1 where something is wrong.")
    add_command(group, backup, "store backup runs/sandbox", "Copies a store, also while a run writes to it.")
    add_command(group, recover, "store recover runs/sandbox", "Saves what is whole of a damaged store.")
    app.add_typer(group, name="store")
