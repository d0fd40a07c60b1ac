"""Named settings of the restoration."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ...errors import InputError
from ...registry import suggest

__all__ = ["PRESETS", "preset_settings"]

_PAPER: dict[str, Any] = {
    "iterations": 3,
    "epsilon": 0.1,
    "adaptive": False,
    "stop": "none",
    "ascend": 1.0,
    "refusals": 0.0,
    "retain": 0.0,
    "estimator": "lbfgs",
    "scale": "trust",
    "max_update": 1.0,
}
_LITERAL: dict[str, Any] = {
    **_PAPER,
    "epsilon": None,
    "epsilon_share": None,  # neither algorithm enforces it
    "forget_target": "prompt",  # its forget data have no answers, and equation 1 sums over all tokens
    "scale": "euclid",  # Algorithm 2, line 8
    "max_update": 0.1,  # eta; no value is given
    "shrink": 0.01,  # lambda; no value is given
    "normalize": "separate",  # Algorithm 1, line 20
    "curv_test": "absolute",  # Algorithm 1, line 19
    "powell": False,  # appendix C.1 names both rejection and damping; Algorithm 1 rejects
    "walk": True,  # Algorithm 1 goes on from each step that it does not revert
    "gamma": "newest",  # the usual choice, as none is given
    "max_attempts": 10,  # T is the number of steps, not of pairs
    "min_pairs": 1,
}
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({"default": {}, "paper": _PAPER, "paper_literal": _LITERAL})
"""Name -> the settings in which it differs from the defaults."""


def preset_settings(name: str) -> dict[str, Any]:
    """The settings of a preset.

    Raises:
        InputError: no such preset.
    """
    if str(name) not in PRESETS:  # in a file it may be a number or a list
        raise InputError(f"There is no preset '{name}' of the restoration. {suggest(str(name), PRESETS)}")
    return dict(PRESETS[name])
