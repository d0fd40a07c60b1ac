"""What a run is cut into: pieces that can be done by themselves, in this process or on another machine."""

from collections.abc import Callable, Iterable
from typing import Protocol

from .state import RunState

__all__ = ["Do", "Done", "Piece"]


class Piece(Protocol):
    """A part of a run; it is sent to where it is done, so all that it holds can be pickled."""

    @property
    def name(self) -> str:
        """Unlike that of any other piece of the stage."""
        ...

    @property
    def after(self) -> tuple[str, ...]:
        """Names of the pieces of the same stage that must have ended before, well or not."""
        ...

    def do(self, state: RunState) -> None:
        """Does it: what comes of it goes into the state, and so does a failure that concerns nothing but itself."""
        ...

    def lost(self, state: RunState, reason: str) -> None:
        """Notes that it could not be done at all."""
        ...


Done = Callable[[Piece], None]
"""Called with each piece as it has ended, well or not."""
Do = Callable[[RunState, Iterable[Piece], Done], None]
"""Does pieces, each after those that it waits for."""
