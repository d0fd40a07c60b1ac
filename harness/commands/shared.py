"""What several commands of the command line have in common."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = ["StoreOption", "console_of_output"]

StoreOption = Annotated[
    Path | None, typer.Option("--store", help="Folder of a store shared between runs (default: the run folder's own).")
]


def console_of_output() -> Console:
    """A terminal's own width; 140 columns where the output goes to a file."""
    return Console() if sys.stdout.isatty() else Console(width=int(os.environ.get("COLUMNS", "140")))
