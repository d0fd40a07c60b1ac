"""A run folder: its plan, its store, and what its cells are called there."""

import os
import uuid
from pathlib import Path

from ...errors import InputError
from ..plan import Cell, Plan
from ..store.store import Store

__all__ = ["MANIFEST", "PLAN", "STORE", "check_kept", "load_plan", "name_of", "open_store", "read_store", "store_of"]

PLAN, STORE, MANIFEST = "plan.json", "store.sqlite", "manifest.json"


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


def store_of(folder: Path, shared: Path | None) -> Path:
    """The file of a run's store: its own, or the shared one in the folder `shared`.

    Raises:
        InputError: there is none.
    """
    path = (shared or folder) / STORE
    if not path.is_file() or not path.stat().st_size:
        what = "There is no store" if not path.is_file() else "Nothing is in the store"
        raise InputError(
            f"{what} {path}. Give with --store the folder that the run was given, or put a backup there; "
            "`safebasin run` makes a new one."
        )
    return path


def check_kept(folder: Path, shared: Path | None) -> None:
    """Whether the store of a run that was finished is still there: else everything would be generated again.

    Raises:
        InputError: it is not, or it is empty.
    """
    path = (shared or folder) / STORE
    if not (folder / MANIFEST).exists() or (path.is_file() and path.stat().st_size):
        return
    raise InputError(
        f"The run in {folder} was finished, but its store {path} {'is empty' if path.is_file() else 'is not there'}. "
        f"Give --store as that run had it, put a backup there, or remove {folder / MANIFEST} to generate all anew."
    )


def open_store(folder: Path, shared: Path | None) -> Store:
    """The store of a run, to be written to; made where there is none.

    Raises:
        InputError: it cannot be opened.
    """
    return Store((shared or folder) / STORE, session=uuid.uuid4().hex[:8])


def read_store(folder: Path, shared: Path | None) -> Store:
    """The store of a run that was begun; where its folder cannot be written to, a copy of it for as long as it is open.

    Raises:
        InputError: there is none, or it cannot be opened.
    """
    path = store_of(folder, shared)
    return Store(path, session=uuid.uuid4().hex[:8], copied=not os.access(path.parent, os.W_OK))


def name_of(cell: Cell) -> str:
    """What a cell is called in the store's assignments."""
    return f"{cell.model} | {cell.label} | seed {cell.seed} | {cell.asked}"
