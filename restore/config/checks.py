"""What the settings of a restoration may be."""

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["wrong_settings"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "stop": ("none", "base_loss", "refused"),
    "retain_target": ("rows", "tuned"),
    "forget_target": ("self", "affirmative", "prompt", "refusal"),
    "estimator": ("lbfgs", "fisher", "gauss_newton"),
    "sources": ("mixed", "retain", "forget"),
    "scale": ("newton", "trust", "euclid"),
    "normalize": ("joint", "separate"),
    "curv_test": ("relative", "absolute"),
    "gamma": ("median", "newest"),
}
_COUNTS = (
    "iterations", "pairs", "max_attempts", "batch_size", "micro_batch_size", "forget_size", "check_size",
    "max_new_tokens", "max_length", "retain_rows", "products", "curvature_rows", "held_out",
)  # fmt: skip
_POSITIVE = ("probe_radius", "probe_radius_max", "probe_radius_min", "trust_radius", "damping")
_NOT_NEGATIVE = (
    "halvings",
    "shrink",
    "min_pairs",
    "curv_tol",
    "seed",
    "ascend",
    "refusals",
    "project",
    "product_tolerance",
)
_SWITCHES = ("walk", "powell", "fresh_curvature", "adaptive")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def wrong_settings(given: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings, one text each."""
    problems = [
        f"{name}={given[name]!r} must be one of {', '.join(known)}"
        for name, known in _CHOICES.items()
        if given[name] not in known
    ]
    checks = _checks()
    problems += [f"{name}={given[name]!r} must be {what}" for name, what, right in checks if not right(given[name])]
    return problems or _contradictions(given)


def _checks() -> list[tuple[str, str, Callable[[Any], bool]]]:
    checks: list[tuple[str, str, Callable[[Any], bool]]] = []
    checks += [(name, "a whole number of at least 1", lambda v: isinstance(v, int) and v >= 1) for name in _COUNTS]
    checks += [(name, "a number above 0", lambda v: _number(v) and v > 0) for name in _POSITIVE]
    checks += [(name, "a number of at least 0", lambda v: _number(v) and v >= 0) for name in _NOT_NEGATIVE]
    checks += [(name, "true or false", lambda v: isinstance(v, bool)) for name in _SWITCHES]
    for name in ("max_update", "layer_radius"):
        checks += [(name, "a number above 0, or null", lambda v: v is None or (_number(v) and v > 0))]
    for name in ("epsilon", "epsilon_share", "retain"):
        checks += [(name, "a number of at least 0, or null", lambda v: v is None or (_number(v) and v >= 0))]
    checks += [("shrink", "below 1", lambda v: not _number(v) or v < 1)]
    checks += [("shrink_anneal", "between 0 and 1", lambda v: _number(v) and 0 <= v <= 1)]
    checks += [("project", "a whole number", lambda v: not _number(v) or isinstance(v, int))]
    checks += [("probe_rates", "positive numbers", lambda v: bool(v) and all(_number(r) and r > 0 for r in v))]
    return checks


def _contradictions(given: Mapping[str, Any]) -> list[str]:
    """Settings that are right one by one, but not together."""
    found = []
    if not given["ascend"] and not given["refusals"]:
        found.append("ascend and refusals are both 0, so there is nothing to restore; give one of them a weight")
    bound = "epsilon_share" if given["epsilon"] is None else "epsilon"
    if given["retain"] is None and not given[bound]:
        found.append(f"retain=None needs a bound above 0, not {bound}={given[bound]!r}; give retain a weight, or 0")
    if given["scale"] == "euclid" and given["max_update"] is None:
        found.append("scale=euclid needs max_update, the length of an update")
    if given["stop"] == "base_loss" and given["forget_target"] == "refusal":
        found.append("stop=base_loss needs a forget loss that is raised, which that of forget_target=refusal is not")
    return found
