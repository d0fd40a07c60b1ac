"""The methods that go through the common checks, each with settings small enough for the tiny models."""

from dataclasses import dataclass, field
from typing import Any

from safebasin.registry import available

_FEW = {"iterations": 1, "max_new_tokens": 4, "epsilon": 1.0}
_UNLEARNING = {**_FEW, "steps": 2, "step_length": 0.3}


@dataclass(frozen=True)
class Case:
    """One method with some settings."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    bad: dict[str, Any] = field(default_factory=dict)
    """One setting that must be refused."""
    variant: str = ""
    keeps_parent: bool = False
    """Whether the result is the parent itself."""
    whole_model: bool = False
    """Whether a whole model is saved and not an adapter."""

    def __str__(self) -> str:
        return f"{self.method}-{self.variant}" if self.variant else self.method


CASES = [
    Case("lora", bad={"rank": 4}),
    Case("full", {"learning_rate": 1e-3}, bad={"learning_rate": 0.0}, whole_model=True),
    Case("vaccine", {"rho": 0.5}, bad={"rho": -1.0}),
    Case("vaccine", {"mode": "align_then_finetune", "alignment_epochs": 1.0}, bad={"mode": "align"}, variant="align"),
    Case("safe_lora", bad={"threshold": 2.0}),
    Case("safe_lora", {"pseudo_unaligned": True, "pseudo_steps": 1}, bad={"pseudo_steps": 0}, variant="pseudo"),
    Case("salora", {"safety_rank": 4, "task_rank": 4, "task_samples": 4}, bad={"safety_rank": 0}),
    Case("curvature", {**_FEW, "products": 2}, bad={"epsilon": -0.1}),
    Case(
        "curvature",
        {**_FEW, "preset": "paper", "pairs": 3, "max_attempts": 12, "min_pairs": 1, "probe_rates": [0.05]},
        bad={"preset": "papers"},
        variant="paper",
    ),
    Case("gradient_ascent", _UNLEARNING, bad={"step_length": 0.0}),
    Case("grad_diff", _UNLEARNING, bad={"forget_weight": 0.0}),
    Case("npo", _UNLEARNING, bad={"beta": 0.0}),
    Case("resta", {"pseudo_steps": 1}, bad={"gamma": -1.0}),
    Case("resta", {"gamma": None, "epsilon": 0.01, "pseudo_steps": 1}, bad={"gamma_most": 0.0}, variant="bound"),
    Case("resta", {"drop": 0.5, "pseudo_steps": 1}, bad={"drop": 1.0}, variant="dare", whole_model=True),
    Case("safe_merge", {"safety_steps": 1, "threshold": 1.0}, bad={"alpha": -0.1}),
    Case(
        "safe_merge",
        {"safety_steps": 1, "pseudo_steps": 1, "pseudo_unaligned": True, "alpha": 0, "threshold": 1.0},
        bad={"merge": "linear"},
        variant="safety_lora",
    ),
    Case("safe_delta", {"s": None, "keep": 0.3}, bad={"keep": 1.5}),
    Case("safe_delta", {"s": None, "keep": 0.3, "compensation": "sum"}, bad={"compensation": "all"}, variant="sum"),
    Case("ridge", {"epsilon": 0.01}, bad={"rows": 0}),
    Case("ridge", {"strength": 1.0}, bad={"strength": -1.0}, variant="fixed"),
    Case("rank_space", {"epsilon": 0.01}, bad={"rows": 0}),
    Case("rank_space", {"strength": 1.0}, bad={"strength": -1.0}, variant="fixed"),
    Case("safety_sft", {"row_passes": 20, "max_new_tokens": 4}, bad={"row_passes": 0}),
    Case(
        "tuned",
        {"of": "ridge", "settings": {"rows": 4}, "grid": [{"strength": 2.0}, {"strength": 5.0}], "max_new_tokens": 4},
        bad={"of": "lora"},
    ),
    Case("shrink", {"epsilon": 0.01}, bad={"match_norm": 0.0}),
    Case("interpolate", {"epsilon": 0.01}, bad={"tolerance": 0.0}),
    Case("random_direction", {"epsilon": 0.01}, bad={"first_length": 0.0}),
    Case("no_op", bad={"epsilon": 0.1}, keeps_parent=True),
]
CASES += [Case(name, bad={"no_such": 0}) for name in sorted({*available("methods")} - {case.method for case in CASES})]
"""A new method is tried with its defaults; where they are too slow for tiny models it has an entry above."""
