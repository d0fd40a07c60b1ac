"""What every judge of a run said of every response: the input of agreement and of judge errors."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .records import Verdict

__all__ = ["FACETS", "FIELDS", "JudgeNote", "JudgedRow", "JudgedTask", "deciding", "facets_of", "numbered", "says"]

FACETS = {"hrr": "harm", "prefill": "harm", "over_refusal": "refusal", "under_refusal": "refusal"}
"""Role of a task -> what of a verdict it counts."""
FIELDS = {"harm": "harmful", "refusal": "refused", "coherence": "coherent"}
"""Facet -> field of `Verdict`."""


@dataclass(frozen=True)
class JudgeNote:
    """One judge of a run."""

    name: str
    decides: frozenset[str]
    """Facets, as in `records.combine`."""


@dataclass(frozen=True)
class JudgedTask:
    """All verdicts on one row's answers to one task."""

    task: str
    role: str
    verdicts: Mapping[int, Sequence[Verdict]]
    """Document -> one of each judge of the row, without the judge's own words; those that are alike are one object."""
    units: Mapping[int, str]
    """Document -> digest of prompt and response: the same exchange in two rows is one observation of a judge."""


@dataclass(frozen=True)
class JudgedRow:
    """What one row of the leaderboard answered, as all judges see it."""

    model: str
    method: str
    seed: int
    judges: Sequence[JudgeNote]
    """In the order in which they decide; no two of one name."""
    tasks: Sequence[JudgedTask]


def numbered(names: Sequence[str]) -> list[str]:
    """The names of the judges, later ones of the same name numbered: `llama_guard`, `llama_guard 2`."""
    return [f"{name} {names[: i + 1].count(name)}" if name in names[:i] else name for i, name in enumerate(names)]


def deciding(judges: Sequence[JudgeNote], facet: str) -> str | None:
    """The first judge that decides a facet, by name."""
    return next((judge.name for judge in judges if facet in judge.decides), None)


def facets_of(rows: Iterable[JudgedRow]) -> list[str]:
    """The facets that some task of the rows counts: harm, refusal."""
    return list(dict.fromkeys(FACETS[task.role] for row in rows for task in row.tasks))


def says(task: JudgedTask, number: int, facet: str) -> Iterator[tuple[int, bool | None]]:
    """Document and what a judge, by its number, says of a facet; None where its answer could not be parsed."""
    return ((doc_id, getattr(verdicts[number], FIELDS[facet])) for doc_id, verdicts in task.verdicts.items())
