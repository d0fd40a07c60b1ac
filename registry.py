"""Named plug-ins (methods, judges), found lazily through package entry points."""

import difflib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import InputError

__all__ = ["available", "load", "suggest"]


def suggest(name: str, known: Iterable[str]) -> str:
    """Ends an error message: `Did you mean 'x'? ` if something is close, then what is known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Known: {', '.join(known) or 'none'}."


def available(group: str) -> dict[str, EntryPoint]:
    """Entry points of `safebasin.<group>` by name, sorted; nothing is imported."""
    found = entry_points(group=f"safebasin.{group}")
    return {name: found[name] for name in sorted(found.names)}


def load(group: str, name: str) -> Any:
    """Imports and returns the object registered as `name`.

    Raises:
        InputError: no such name in the group (with the closest one), or its package failed to import.
    """
    known = available(group)
    if name not in known:
        raise InputError(f"Unknown {group.rstrip('s')} '{name}'. {suggest(name, known)}")
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:  # no such module; no such name in it
        raise InputError(
            f"The {group.rstrip('s')} '{name}' ({known[name].value}) cannot be imported: {error}."
        ) from error
