"""Folders that are either finished or not there."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError

__all__ = ["finished_folder", "locked", "make_folder"]


def make_folder(folder: Path) -> Path:
    """Makes a folder with its parents.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"Cannot write to the folder {folder}: {error.strerror}. Choose another --output.") from error
    return folder


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[None]:
    """Keeps other processes out of a folder for the length of the block; it is free again when the process ends.

    Raises:
        InputError: another process holds the lock and `wait` is False.
    """
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise InputError(
                f"Another process is running in {folder}. Wait for it, or choose another --output."
            ) from error
        yield


@contextmanager
def finished_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place if the block ends well, and vanishes if it does not."""
    make_folder(target.parent)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes folders private
        if target.exists():
            shutil.rmtree(target)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
