"""Every setting of the curvature-aware restoration, with its default and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..errors import InputError

__all__ = ["RestoreConfig"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "scale": ("trust", "euclid"),
    "normalize": ("joint", "separate"),
    "sources": ("mixed", "retain", "forget"),
    "forget_target": ("self", "affirmative"),
}
_COUNTS = (
    "iterations", "pairs", "max_attempts", "batch_size", "micro_batch_size", "forget_size", "check_size",
    "max_new_tokens", "max_length",
)  # fmt: skip
_POSITIVE = ("probe_radius", "probe_radius_max", "probe_radius_min", "trust_radius", "max_update")
_NOT_NEGATIVE = ("epsilon", "halvings", "shrink", "min_pairs", "curv_tol", "seed")


@dataclass(frozen=True, kw_only=True)
class RestoreConfig:
    """Settings of `restore`. Where the paper contradicts itself, the field says which reading is the default.

    Numbers such as A-8 are those of the list of such contradictions in the documentation.
    """

    iterations: int = 3
    """Influence updates; each recomputes the curvature pairs, on batches drawn anew (A-20)."""
    epsilon: float = 0.1
    """How much the loss on the retain check set may rise in all, in nats per token (equation 2). The paper never
    enforces it; here every update is halved until it holds, against the loss before the first update (A-6, A-7)."""
    trust_radius: float = 0.1
    """Length of an update in the metric of the curvature, the delta of equation 4 (A-8)."""
    scale: Literal["trust", "euclid"] = "trust"
    """`trust` is the solution of equation 4; `euclid` gives updates the length `max_update`, as Algorithm 2 (A-2)."""
    max_update: float = 1.0
    """Euclidean length that an update may not exceed; with `scale=euclid`, the length that it has (A-2)."""
    halvings: int = 8
    """Times an update is halved before it is given up (A-6)."""
    shrink: float = 0.0
    """Share of the parameters taken off in each update, the lambda of Algorithm 2. By itself it drifts to the base
    model, so it is off by default (A-5)."""
    shrink_anneal: float = 0.95
    """`shrink` is multiplied by this after each iteration (appendix C.2)."""

    pairs: int = 10
    """Curvature pairs per iteration (appendix C.1)."""
    max_attempts: int = 30
    """Probe steps per iteration, at most; rejected ones leave no pair (A-17)."""
    min_pairs: int = 6
    """A warning is given below this many pairs (A-17)."""
    sources: Literal["mixed", "retain", "forget"] = "mixed"
    """Data sets the pairs come from. `mixed` is the paper's; its curvature is not that of the retain loss (A-12)."""
    probe_rates: tuple[float, ...] = (0.001, 0.002, 0.005)
    """Probe step = -rate * gradient; the rate changes from round to round of the data sets (A-9)."""
    probe_radius: float = 0.05
    """Initial bound on the Euclidean length of probe steps, the delta of Algorithm 1 (A-8)."""
    probe_radius_max: float = 1.0
    """Algorithm 1 lets the bound grow by half after almost every step; it stops here (A-10)."""
    probe_radius_min: float = 1e-4
    """And it shrinks no further than this (A-10)."""
    walk: bool = False
    """Whether probing walks on from each accepted step, as Algorithm 1, or starts every pair from the model (A-11)."""
    normalize: Literal["joint", "separate"] = "joint"
    """`separate` makes s and y unit vectors each, as Algorithm 1 says, which loses the relative curvature (A-13)."""
    curv_tol: float = 1e-6
    """A pair needs <s,y> above this share of |s||y| (A-14)."""
    damping: bool = True
    """Powell damping of low and negative curvature, before the filter (A-15)."""

    batch_size: int = 64
    """Rows per probe batch; smaller where a set would give fewer than 4 batches (A-17)."""
    micro_batch_size: int = 8
    """Rows per forward pass. Decides memory and speed, not the result."""
    max_length: int = 1024
    """Longest row, in tokens."""
    forget_size: int = 50
    """Forget rows that the update ascends; the others probe curvature (A-18)."""
    check_size: int = 200
    """Retain rows held out to enforce epsilon, at most a quarter of all (A-29)."""
    forget_target: Literal["self", "affirmative"] = "self"
    """The answer whose loss is raised: the model's own, or the row's `target` (A-3)."""
    max_new_tokens: int = 64
    """Length of the model's own answers."""
    seed: int = 0
    """Decides all splits and the order of batches."""

    def __post_init__(self) -> None:
        rates: Any = self.probe_rates
        object.__setattr__(self, "probe_rates", tuple(rates) if isinstance(rates, list | tuple) else (rates,))
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        problems = [*_wrong_choices(given), *_wrong_numbers(given)]
        if problems:
            raise InputError("Bad restoration settings: " + "; ".join(problems) + ".")


def _wrong_choices(given: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}={given[name]!r} must be one of {', '.join(known)}"
        for name, known in _CHOICES.items()
        if given[name] not in known
    ]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _wrong_numbers(given: Mapping[str, Any]) -> list[str]:
    rates = given["probe_rates"]
    checks: list[tuple[str, str, Callable[[Any], bool]]] = []
    checks += [(name, "a whole number of at least 1", lambda v: isinstance(v, int) and v >= 1) for name in _COUNTS]
    checks += [(name, "a number above 0", lambda v: _number(v) and v > 0) for name in _POSITIVE]
    checks += [(name, "a number of at least 0", lambda v: _number(v) and v >= 0) for name in _NOT_NEGATIVE]
    checks += [(name, "true or false", lambda v: isinstance(v, bool)) for name in ("walk", "damping")]
    checks += [("shrink", "below 1", lambda v: not _number(v) or v < 1)]
    checks += [("shrink_anneal", "between 0 and 1", lambda v: _number(v) and 0 <= v <= 1)]
    checks += [("probe_rates", "positive numbers", lambda v: bool(rates) and all(_number(r) and r > 0 for r in rates))]
    return [f"{name}={given[name]!r} must be {what}" for name, what, right in checks if not right(given[name])]
