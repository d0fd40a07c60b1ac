"""A point of a sweep through weight space, and the text that a request carries it as.

A generation request has it among its generation settings, a log-likelihood request in a third argument:
`(context, {..., "perturbation": text})` and `(context, continuation, {"perturbation": text})`. It is text because
lm-eval batches requests by `tuple(value)`, which for a dict is its keys alone.
"""

import json
import math
from dataclasses import dataclass
from typing import Self

from ..errors import InputError

__all__ = ["KEY", "Perturbation"]

KEY = "perturbation"
"""Where a request carries it."""


@dataclass(frozen=True)
class Perturbation:
    """Weights moved by `alpha` along a random direction that is as long as the weights are, tensor by tensor."""

    direction: int
    """Seed of the direction, 0 or more."""
    alpha: float
    """Step, as a share of each tensor's norm; finite."""

    @property
    def text(self) -> str:
        """Canonical JSON: equal texts for equal perturbations and for no others."""
        content = {"alpha": float(self.alpha) + 0.0, "direction": self.direction}  # -0.0 + 0.0 is 0.0
        return json.dumps(content, sort_keys=True, separators=(",", ":"))

    @property
    def weights(self) -> "Perturbation":
        """The same weights under one name: at alpha 0 every direction is at the origin."""
        return self if self.alpha else Perturbation(0, 0.0)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads what `text` wrote.

        Raises:
            InputError: it is not that.
        """
        try:
            content = json.loads(text)
            found = cls(content["direction"], content["alpha"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(_wanted(text)) from error
        numbers = type(found.direction) is int and type(found.alpha) in (int, float) and len(content) == 2
        if not numbers or found.direction < 0 or not math.isfinite(found.alpha):
            raise InputError(_wanted(text))
        return found


def _wanted(text: object) -> str:
    example = Perturbation(0, 0.05).text
    return (
        f"{text!r} is no perturbation. Give JSON text such as {example}: a direction of 0, 1, 2, ... and a finite step."
    )
