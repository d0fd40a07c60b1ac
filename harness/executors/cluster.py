"""The cluster interface: where pieces of a run can be sent."""

from collections.abc import Callable
from typing import Any, Protocol

from ..pieces import Piece
from .work import Order, Outcome

__all__ = ["Cluster", "Died", "Work"]

Work = Callable[[Piece, Order, str], Outcome]


class Died(Exception):
    """A worker ended without an outcome: it was killed, or its node is gone."""


class Cluster(Protocol):
    """Where work can be sent."""

    pause: float
    """Seconds between two looks at what is under way."""
    notice: str
    """What a user should know before anything is sent; may be empty."""

    def send(self, name: str, work: Work, *given: Any) -> Any:
        """Sends work off, to be done when there is room for it.

        Args:
            name: as a reader of the cluster's own lists may know it.
            work: called on the worker.
            given: its arguments, picklable.

        Returns:
            A handle for the others.
        """
        ...

    def outcome(self, handle: Any) -> Outcome | None:
        """What it came to; None while it waits or is under way.

        Raises:
            Died: it will never come to anything.
        """
        ...

    def drop(self, handle: Any) -> None:
        """Ends it, wherever it is."""
        ...

    def close(self) -> None:
        """Leaves the cluster."""
        ...
