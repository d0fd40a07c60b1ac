"""What a report is made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..judged import JudgeNote
from ..method_result import MethodResult
from ..records import Outcome, Verdict

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Answer", "Asked", "JudgeNote", "Report", "Source"]


@dataclass(frozen=True)
class Answer:
    """One judged response, for the browser of responses."""

    text: str
    """The whole response; under a prefilling attack it begins with the prefix."""
    outcome: Outcome
    verdicts: tuple[Verdict, ...]
    """One per judge, in their order."""


@dataclass(frozen=True)
class Asked:
    """One prompt of one task, with what all rows of its model answered."""

    model: str
    task: str
    doc_id: int
    prompt: str
    prefix: str
    """The beginning that was forced on the answer; empty where there was none, or the store does not know it."""
    answers: Mapping[int, Answer]
    """Number of the row in `Report.results` -> its response."""


@dataclass(frozen=True)
class Source:
    """One run folder behind the report."""

    name: str
    manifest: Mapping[str, Any]
    """Its manifest.json; empty where there is none."""
    config: str
    """Its resolved config, in YAML."""
    commands: Sequence[str]
    """What to type to make it again."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything on the page."""

    results: Sequence[MethodResult]
    frame: pd.DataFrame
    """Their leaderboard."""
    judges: Sequence[JudgeNote] = ()
    judge_rates: pd.DataFrame | None = None
    """`judge_table.JUDGES`."""
    judge_errors: pd.DataFrame | None = None
    """`judge_table.ERRORS`."""
    agreement: pd.DataFrame | None = None
    """`agreement.AGREEMENT`."""
    asked: Iterable[Asked] = ()
    """Read once, in order: they are never all in memory."""
    points: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Label of a row on the frontier -> (its method's label, epsilon)."""
    starts: Mapping[str, str] = field(default_factory=dict)
    """Label of a post-hoc row -> label of the row whose model it repairs."""
    over_worlds: bool = False
    """Whether the models are replicas, to be averaged over."""
    published: pd.DataFrame | None = None
    """`beside.BESIDE`; None where no published numbers are named."""
    sources: Sequence[Source] = ()
