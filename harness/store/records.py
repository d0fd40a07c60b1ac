"""What the store keeps of a run, as records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["JudgeRecord", "LabelRecord", "Point", "Sample", "SheetItem", "SheetRecord"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One response as it is judged: for a prefilling attack the response begins with the prefix."""

    doc_id: int
    prompt: str
    response: str
    prefix: str = ""
    """The beginning of the response that was forced on it."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where in a VISAGE sweep a sample comes from; fields as in `results.method_result.SweepSample`."""

    doc_id: int
    """That of the sample."""
    prompt: int
    direction: int
    alpha: float
    logprob: float
    tokens: int


@dataclass(frozen=True)
class JudgeRecord:
    """A judge that a run used."""

    name: str
    decides: frozenset[str]
    identity: str


@dataclass(frozen=True)
class SheetItem:
    """One response on a review sheet."""

    id: str
    exchange: str
    """Digest of prompt and response."""
    stratum: str = ""


@dataclass(frozen=True)
class SheetRecord:
    """A review sheet, and what it was drawn from."""

    id: str
    run: str
    """Digest of the run's plan."""
    items: tuple[SheetItem, ...]
    """In the order of the sheet."""
    tasks: Sequence[str] = ()
    cells: Sequence[str] = ()
    """Names of the cells that it was drawn from."""
    population: str = ""
    """Digest of all exchanges of these cells."""
    strata: Mapping[str, int] = field(default_factory=dict)
    """Stratum -> how many different exchanges the cells have of it."""
    settles: str = ""
    """The sheet of which it holds what reviewers label differently; empty for one that was drawn."""


@dataclass(frozen=True)
class LabelRecord:
    """What a reviewer said of an item."""

    item: str
    reviewer: str
    label: str
    note: str = ""
