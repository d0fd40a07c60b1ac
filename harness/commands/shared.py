"""What several commands of the command line have in common."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..terminal.console import safe_console

__all__ = ["StoreOption", "add_command", "console_of_output", "folded"]

FOLDED = 56
"""Characters shown of a prompt, unless the texts are asked for."""

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of a store shared between runs (default: the run folder's own).")
]


def console_of_output() -> Console:
    """A terminal's own width; 140 columns where the output goes to a file."""
    columns = os.environ.get("COLUMNS", "")
    return safe_console() if sys.stdout.isatty() else safe_console(width=int(columns) if columns.isdecimal() else 140)


def add_command(
    app: typer.Typer, command: Callable[..., None], example: str, what: str, name: str | None = None
) -> None:
    """Adds a command whose help opens with an example, which the tests run; it has the function's name by default."""
    app.command(name, help=f"Example: safebasin {example}\n\n{what}", short_help=what)(command)


def folded(prompt: str) -> str:
    """The beginning of a prompt, on one line."""
    line = " ".join(prompt.split())
    return f"{line[:FOLDED]}{'…' if len(line) > FOLDED else ''}"
