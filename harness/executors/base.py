"""The executor interface: it does the pieces of a run, wherever that is."""

from collections.abc import Iterable
from typing import ClassVar, Protocol

from ..pieces import Done, Piece
from ..state import RunState

__all__ = ["Executor"]


class Executor(Protocol):
    """Does pieces; what comes of them is in the driver's state and store when it returns."""

    far: ClassVar[bool]
    """Whether pieces are done outside this process."""

    def do(self, state: RunState, pieces: Iterable[Piece], done: Done) -> None:
        """Does pieces, each after those that it waits for; one that fails does not stop the others.

        Args:
            state: of the run.
            pieces: all of one stage; each may be made as it is taken.
            done: called with each as it has ended, well or not.

        Raises:
            InputError: no piece could be done at all.
            StorageError: the disk is full, or the store fails.
        """
        ...

    def close(self) -> None:
        """Ends what is under way, and frees what it holds."""
        ...
