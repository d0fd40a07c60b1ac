"""The one kind of error that is the user's to mend: shown as a message, never as a traceback."""

from collections.abc import Sequence

__all__ = ["InputError", "several"]

SHOWN = 8


class InputError(ValueError):
    """Bad input: says what happened, the offending value and what to do. The command line exits with 2 on it."""


def several(headline: str, faults: Sequence[str], shown: int = SHOWN) -> str:
    """One message of many faults: one by itself, else a headline with their number, and the first of them a line each.

    Args:
        headline: ends the first line, for example `rows of 'a.csv' cannot be used`.
        faults: a sentence each, at least one.
        shown: how many are shown at most.
    """
    if len(faults) == 1:
        return faults[0]
    more = [f"  … and {len(faults) - shown} more"] if len(faults) > shown else []
    return "\n".join([f"{len(faults)} {headline}:", *(f"  {fault}" for fault in faults[:shown]), *more])
