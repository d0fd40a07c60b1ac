"""The errors that are shown as a message, never as a traceback: bad input, and a disk or store that fails."""

import errno
import traceback
from collections.abc import Sequence

__all__ = ["InputError", "StorageError", "check_disk", "listed", "sendable", "several"]

_FULL = (errno.ENOSPC, errno.EDQUOT)

SHOWN = 8


class InputError(ValueError):
    """Bad input: says what happened, the offending value and what to do. The command line exits with 2 on it."""


class StorageError(RuntimeError):
    """The disk is full, or the store is damaged or fails: going on is of no use. The command line exits with 1 on it.

    What happened, where, and what to do; not an `InputError`, so nothing that notes one and goes on catches it.
    """


def check_disk(error: BaseException, where: object = "") -> None:
    """Raises `StorageError` if an error means that the disk is full; safetensors says so in words alone.

    Args:
        error: what was caught.
        where: what could not be written; empty takes what the error names.

    Raises:
        StorageError: it does.
    """
    full = isinstance(error, OSError) and error.errno in _FULL
    if full or "No space left on device" in str(error):
        place = where or getattr(error, "filename", None)
        what = f"{place} cannot be written" if place else "something cannot be written"
        raise StorageError(
            f"The disk is full: {what}. What was finished is kept; free space, then run the same command again."
        ) from error


def sendable(error: BaseException) -> Exception:
    """An error as another process can be sent it: not every exception survives that.

    Returns:
        An `InputError` or a `StorageError` (a full disk too) as it is, else a RuntimeError that names it; the traceback
        is its note.
    """
    told = "".join(traceback.format_exception(error))
    try:
        check_disk(error)
    except StorageError as full:
        error = full
    kind = next((kind for kind in (InputError, StorageError) if isinstance(error, kind)), RuntimeError)
    sent = kind(f"{type(error).__name__}: {error}" if kind is RuntimeError else str(error))
    sent.add_note(told)
    return sent


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
