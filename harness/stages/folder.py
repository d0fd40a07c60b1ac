"""A run folder: its plan, its store, and what its cells are called there."""

import uuid
from pathlib import Path

from ...errors import InputError
from ..plan import Cell, Plan
from ..store.store import Store

__all__ = ["PLAN", "load_plan", "name_of", "open_store"]

PLAN, STORE = "plan.json", "store.sqlite"


def load_plan(folder: Path) -> Plan:
    """The plan of a run folder.

    Raises:
        InputError: there is none, or it is not readable.
    """
    try:
        return Plan.from_json((folder / PLAN).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder} is no run folder: {PLAN} cannot be read ({error.strerror}). Give what `safebasin run` wrote."
        ) from error


def open_store(folder: Path, shared: Path | None) -> Store:
    """The store of a run: its own, or the shared one in the folder `shared`."""
    return Store((shared or folder) / STORE, session=uuid.uuid4().hex[:8])


def name_of(cell: Cell) -> str:
    """What a cell is called in the store's assignments."""
    return f"{cell.model} | {cell.label} | seed {cell.seed} | {cell.task}"
