"""The judge interface: text in, verdict out."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from ..results.records import Verdict

__all__ = ["Exchange", "Judge", "RemoteJudge"]


class Exchange(NamedTuple):
    """One request and the response to it, as the judge sees them."""

    prompt: str
    response: str
    """The whole answer: for a prefilling attack, prefix + continuation."""


@runtime_checkable
class Judge(Protocol):
    """A judge. Constructed from the keyword arguments under its name in the config; loads models on first use."""

    name: ClassVar[str]
    decides: ClassVar[frozenset[str]]
    """Of "harm", "refusal", "coherence", "grade": the facets of `Verdict` that it fills."""
    summary: ClassVar[str]
    """One line for `safebasin list judges`."""
    licence: ClassVar[str]
    """Licence of the judge's weights or word lists."""

    @property
    def identity(self) -> str:
        """Everything that can change a verdict (settings, model digest, template digest), as one stable string."""
        ...

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        """Judges each exchange; the result has the same length and order.

        Args:
            exchanges: what to judge; may be empty.
            on_done: called now and then with the number of exchanges finished so far (of all of them, not since the
                last call), and at the end with their total; for a progress bar.
        """
        ...

    def close(self) -> None:
        """Frees the memory held. The judge can be used again; it loads again."""
        ...


@runtime_checkable
class RemoteJudge(Judge, Protocol):
    """A judge on another machine: it is asked from one process only, and what it has answered is kept soon."""

    @property
    def chunk(self) -> int:
        """Exchanges handed over in one call; what they cost is lost if the call fails."""
        ...

    @property
    def notice(self) -> str:
        """What the user is told before anything is sent: what goes where."""
        ...

    @property
    def spent(self) -> dict[str, Any]:
        """What was sent and used by this process so far, for the manifest; JSON values."""
        ...
