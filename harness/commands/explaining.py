"""`safebasin run --explain-key`: what of the store would be taken, and why the rest would not."""

import json
from pathlib import Path

from rich.console import Console

from ..config.model import RunConfig
from ..engines.choice import choose
from ..plan import make_plan
from ..stages.align import find_model
from ..stages.explain import explain
from ..stages.folder import open_store
from ..terminal.console import safe_console

__all__ = ["explain_keys"]


def explain_keys(config: RunConfig, folder: Path, console: Console | None = None, store: Path | None = None) -> None:
    """Prints the parts of every key of a run, and why what is stored would be taken or not; nothing is loaded.

    Args:
        config: a validated config.
        folder: the run folder.
        console: where it is printed.
        store: folder of a store shared with other runs.

    Raises:
        InputError: a model cannot be had, or the store cannot be opened.
    """
    console = console or safe_console()
    found = {spec.id: find_model(spec, config) for spec in config.models}
    models = {name: source for name, source in found.items() if source}
    opened = open_store(folder, store)
    try:
        for one in explain(make_plan(config), folder, opened, models, choose(config)):
            state = "taken from the store" if one.taken else "to be made: " + "; ".join(one.differ)
            parts = [f"    {name}: {json.dumps(value)}" for name, value in one.parts.items()]
            for line in (f"{one.name}: {state}", f"  key {one.key[:12] or 'unknown'}", *parts):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
    finally:
        opened.close()
