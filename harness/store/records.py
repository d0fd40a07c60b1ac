"""What the store keeps of a run, as records."""

from dataclasses import dataclass

__all__ = ["JudgeRecord", "Point", "Sample"]


@dataclass(frozen=True)
class Sample:
    """One response as it is judged: for a prefilling attack the response begins with the prefix."""

    doc_id: int
    prompt: str
    response: str
    prefix: str = ""
    """The beginning of the response that was forced on it."""


@dataclass(frozen=True)
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
