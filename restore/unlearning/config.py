"""Settings of the unlearning baselines and of the controls, as near to those of the restoration as they can be."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from ...errors import InputError

__all__ = ["ControlConfig", "RetainedUnlearnConfig", "UnlearnConfig", "check_settings"]


@dataclass(frozen=True, kw_only=True)
class UnlearnConfig:
    """Settings that every unlearning baseline shares.

    Budget: `curvature` takes 21 gradients in an iteration (two for each of 10 pairs, one of the forget loss), on
    batches of about the same size. The default `steps` spend as many.
    """

    iterations: int = 3
    """As `curvature`. A step that no halving brings inside the bound ends its iteration."""
    steps: int = 21
    """Gradient steps in an iteration, one gradient each. With `steps: 1` it is `curvature` with H = identity."""
    epsilon: float = 0.1
    """How much the loss on the retain check set may rise in all, in nats per token, checked at every step."""
    halvings: int = 8
    """Times a step is halved before it is given up."""
    step_length: float = 0.1
    """Euclidean length of a step: the trust radius of equation 4, with the identity for a metric."""
    constant_length: bool = True
    """Whether all steps have that length; else only the first, and later ones the same rate, but no more length."""
    forget_from: Literal["forget", "both"] = "forget"
    """`forget` ascends the rows that `curvature` ascends; `both` also those that it only probes curvature on."""
    forget_target: Literal["self", "affirmative"] = "self"
    """The answer whose loss is raised: the tuned model's own, or the row's `target`."""
    max_new_tokens: int = 64
    """Length of the model's own answers."""
    micro_batch_size: int = 8
    """Rows per forward pass. Decides memory and speed, not the result."""
    max_length: int = 1024
    """Longest row, in tokens; the run's."""
    seed: int = 0
    """Decides the order of retain batches; the run's."""

    def __post_init__(self) -> None:
        check_settings(
            self,
            counts=("iterations", "steps", "max_new_tokens", "micro_batch_size", "max_length"),
            positive=("step_length",),
            not_negative=("epsilon",),
            indices=("halvings", "seed"),
            choices={"forget_from": ("forget", "both"), "forget_target": ("self", "affirmative")},
        )


@dataclass(frozen=True, kw_only=True)
class RetainedUnlearnConfig(UnlearnConfig):
    """Settings of the baselines that also descend the loss on retain batches: two gradients in a step, not one."""

    steps: int = 10
    """Gradient steps in an iteration, two gradients each."""
    constant_length: bool = False
    """Such losses have minima, which steps of constant length would miss."""
    forget_weight: float = 1.0
    """Weight of the forget term (gamma in open-unlearning; alpha in the paper)."""
    retain_weight: float = 1.0
    """Weight of the retain term (alpha in open-unlearning; 1 in the paper). At 0 no retain gradient is taken."""
    batch_size: int = 64
    """Retain rows in a batch, one batch for each step; smaller where a set would give fewer than 4 batches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, counts=("batch_size",), positive=("forget_weight",), not_negative=("retain_weight",))


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Settings of a control: a path away from the tuned model, followed as far as the bound allows."""

    epsilon: float = 0.1
    """How much the loss on the retain check set may rise, in nats per token: as in `curvature`."""
    tolerance: float = 0.02
    """The search ends where this share of epsilon, or less, is left."""
    max_trials: int = 40
    """Trial points, at most; each takes one forward pass over the retain check set."""
    micro_batch_size: int = 8
    """Rows per forward pass. Decides memory and speed, not the result."""

    def __post_init__(self) -> None:
        check_settings(
            self, counts=("max_trials", "micro_batch_size"), positive=("tolerance",), not_negative=("epsilon",)
        )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def check_settings(
    settings: Any,
    counts: Sequence[str] = (),
    positive: Sequence[str] = (),
    not_negative: Sequence[str] = (),
    indices: Sequence[str] = (),
    choices: dict[str, tuple[str, ...]] | None = None,
) -> None:
    """Raises InputError with all that is wrong."""
    value = {field.name: getattr(settings, field.name) for field in fields(settings)}
    wrong = [(name, "a whole number of at least 1") for name in counts if not _whole(value[name], 1)]
    wrong += [(name, "a whole number of at least 0") for name in indices if not _whole(value[name], 0)]
    wrong += [(name, "a number above 0") for name in positive if not (_number(value[name]) and value[name] > 0)]
    wrong += [
        (name, "a number of at least 0") for name in not_negative if not (_number(value[name]) and value[name] >= 0)
    ]
    wrong += [
        (name, f"one of {', '.join(known)}") for name, known in (choices or {}).items() if value[name] not in known
    ]
    if wrong:
        problems = "; ".join(f"{name}={value[name]!r} must be {what}" for name, what in wrong)
        raise InputError(f"Bad settings of {getattr(settings, 'name', 'a method')}: {problems}.")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
