"""Folders that are either finished or not there."""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import InputError, check_disk
from ...tasks.sandbox.location import cache_folder

__all__ = ["finished_folder", "locked", "make_folder", "sweep"]


def make_folder(folder: Path) -> Path:
    """Makes a folder with its parents.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        check_disk(error, folder)
        raise InputError(f"Cannot write to the folder {folder}: {error.strerror}. {_otherwise(folder)}") from error
    return folder


def _otherwise(folder: Path) -> str:
    """What to do about a folder that cannot be written to."""
    if folder.is_relative_to(cache_folder()):
        return "It is in the cache: set SAFEBASIN_CACHE to a folder that can be written to."
    return "Choose another --output."


@contextmanager
def locked(folder: Path, wait: bool) -> Iterator[None]:
    """Keeps other processes out of a folder for the length of the block; it is free again when the process ends.

    Raises:
        InputError: another process holds the lock and `wait` is False; or the lock cannot be opened, or is a link.
    """
    path = folder / ".lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        check_disk(error, path)
        what = "it is a link" if path.is_symlink() else error.strerror
        raise InputError(f"The lock {path} cannot be opened: {what}. Remove it. {_otherwise(folder)}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise InputError(
                f"Another process is running in {folder}. Wait for it, or choose another --output."
            ) from error
        yield
    finally:
        os.close(lock)


@contextmanager
def finished_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target` that takes its place if the block ends well, and vanishes if it does not.

    What a killed process has left of the same target vanishes too. Whatever lies in the target's place goes.
    """
    make_folder(target.parent)
    sweep(target.parent, target.name)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    held = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)  # as long as this process lives, nobody sweeps it
        yield scratch
        scratch.chmod(0o755)  # mkdtemp makes folders private
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        os.replace(scratch, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(held)


def sweep(parent: Path, name: str = "*") -> None:
    """Removes the temporary folders of `finished_folder` whose process is gone.

    Args:
        parent: of the targets.
        name: of one target; a `*` stands for all of them.
    """
    for left in parent.glob(f".{name if name == '*' else glob.escape(name)}-{'[a-z0-9_]' * 8}"):
        if left.is_dir() and not left.is_symlink():
            held = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            except BlockingIOError:
                continue  # another process is at work there
            finally:
                os.close(held)
