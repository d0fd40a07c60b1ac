"""`executor: local`: everything in this process, one piece after the other."""

from collections.abc import Iterable
from typing import ClassVar

from ..pieces import Done, Piece
from ..state import RunState

__all__ = ["Local"]


class Local:
    """Pieces come in an order in which none waits for a later one."""

    far: ClassVar[bool] = False

    def do(self, state: RunState, pieces: Iterable[Piece], done: Done) -> None:
        """See `Executor`."""
        for piece in pieces:
            piece.do(state)
            done(piece)

    def close(self) -> None:
        """See `Executor`."""
