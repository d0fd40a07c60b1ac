"""The judge interface: text in, verdict out."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

from ..results.records import Verdict

__all__ = ["Exchange", "Judge"]


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
    """Of "harm", "refusal", "coherence": the facets of `Verdict` that it fills."""
    summary: ClassVar[str]
    """One line for `safebasin list judges`."""
    licence: ClassVar[str]
    """Licence of the judge's weights or word lists."""

    @property
    def identity(self) -> str:
        """Everything that can change a verdict (settings, model digest, template digest), as one stable string."""
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Judges each exchange; the result has the same length and order."""
        ...

    def close(self) -> None:
        """Frees the memory held. The judge can be used again; it loads again."""
        ...
