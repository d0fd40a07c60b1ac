"""The one kind of error that is the user's to mend: shown as a message, never as a traceback."""

from collections.abc import Sequence

__all__ = ["InputError", "listed", "several"]

SHOWN = 8


class InputError(ValueError):
    """Bad input: says what happened, the offending value and what to do. The command line exits with 2 on it."""


def listed(faults: Sequence[str], shown: int = SHOWN) -> str:
    """The first faults, an indented line each, and how many more there are."""
    more = [f"  … and {len(faults) - shown} more"] if len(faults) > shown else []
    return "\n".join([*(f"  {fault}" for fault in faults[:shown]), *more])


def several(headline: str, faults: Sequence[str]) -> str:
    """One message of many faults: one by itself, else a headline with their number and the first of them.

    Args:
        headline: ends the first line, for example `rows cannot be used`.
        faults: a sentence each, at least one.
    """
    return faults[0] if len(faults) == 1 else f"{len(faults)} {headline}:\n{listed(faults)}"
