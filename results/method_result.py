"""What was measured of one method: the input of the leaderboard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .columns import AFTER_UTILITY, BEFORE_UTILITY, CORRECTED, GRADED, RELAPSE, UNFINISHED
from .records import Outcome
from .text import storable

__all__ = ["ROLES", "STAGES", "MethodResult", "Relapse", "Sample", "SweepSample"]

ROLES = ("hrr", "prefill", "over_refusal", "under_refusal")
"""What a safety task measures: harm, harm after a forced opening, refusal of harmless requests, and of unsafe ones."""
STAGES = ("base", "alignment", "fine-tuning", "post-hoc")
"""When a method acts on the model."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One judged response."""

    doc_id: int
    """The prompt's number in its task; methods are paired by it."""
    outcome: Outcome
    refused: bool | None
    """Does it refuse, whatever the outcome? None if no judge decided that, or its answer could not be parsed."""
    grade: float | None = None
    """How harmful, from 0 to 1; None if no judge graded it, or its answer could not be parsed."""
    maximal: bool | None = None
    """Is the grade the highest of its judge's scale?"""
    category: str = ""
    """The kind of request, as its data name it."""


@dataclass(frozen=True, slots=True)
class SweepSample:
    """One judged response of a model whose weights were moved."""

    prompt: int
    """The prompt's number in its task."""
    direction: int
    """Which random direction, from 0."""
    alpha: float
    """How far along it, as a share of each tensor's norm."""
    outcome: Outcome
    jailbroken: bool
    """Does no refusal keyword occur, as the published score counts?"""
    logprob: float
    """Log-probability (nats) of the response under the model that was not moved."""
    tokens: int
    """Tokens of the response behind it; 0 for an empty one."""


@dataclass(frozen=True)
class Relapse:
    """One fine-tuning of a finished checkpoint, and what was answered on the way."""

    samples: Mapping[int, Sequence[Sample]]
    """Optimizer steps -> the judged responses after them; after 0 those of the checkpoint as it was."""
    minutes: float | None = None
    """Of the training."""
    peak_gb: float | None = None


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """Everything measured of one method on one model with one seed. What was not asked for is absent or None."""

    model: str
    method: str
    stage: str
    """One of STAGES."""
    seed: int
    status: str = "ok"
    """"ok", or "failed: <reason>"; what was measured before the failure may still be given."""
    safety: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """Judged responses by role (one of ROLES)."""
    sweep: Sequence[SweepSample] = ()
    """Judged responses of the VISAGE task: each prompt at each point of each direction."""
    relapse: Mapping[str, Relapse] = field(default_factory=dict)
    """By the name of the fine-tuning."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """``eval_loss`` in nats per token, and the utility metrics, in percent where they are rates."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Utility metric -> how many documents it is of."""
    safety_examples: int | None = None
    """How many safety examples the method was given."""
    minutes: float | None = None
    peak_gb: float | None = None
    model_digest: str = ""
    """Digest of the weights of `model`; empty where it is not known."""

    def __post_init__(self) -> None:
        for text in ("model", "method", "status"):
            object.__setattr__(self, text, storable(getattr(self, text)))
        object.__setattr__(self, "metrics", {storable(metric): value for metric, value in self.metrics.items()})
        object.__setattr__(self, "documents", {storable(metric): n for metric, n in self.documents.items()})
        name = self.name
        if self.stage not in STAGES:
            raise ValueError(f"{name}: stage {self.stage!r} is none of {', '.join(STAGES)}")
        if self.status != "ok" and not self.status.startswith("failed: "):
            raise ValueError(f"{name}: status {self.status!r} is neither 'ok' nor 'failed: <reason>'")
        if unknown := set(self.safety) - set(ROLES):
            raise ValueError(f"{name}: unknown roles {sorted(unknown)}; the roles are {', '.join(ROLES)}")
        known = {*BEFORE_UTILITY, *AFTER_UTILITY, *GRADED, *CORRECTED, *UNFINISHED}
        known |= {metric for metric in self.metrics if metric.startswith(RELAPSE)}
        if taken := set(self.metrics) & (known - {"eval_loss"}):
            raise InputError(f"{name}: utility metrics {sorted(taken)} have names of leaderboard columns; rename them")
        for role, samples in self.safety.items():
            if len({sample.doc_id for sample in samples}) < len(samples):
                raise ValueError(f"{name}: some prompt has two responses in role {role!r}")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.model} / {self.method} / seed {self.seed}"
