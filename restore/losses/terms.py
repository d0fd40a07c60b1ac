"""Weighted losses and the gradient of their sum."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..models.vectors import combine
from .objective import Objective

__all__ = ["Term", "descent"]


@dataclass(frozen=True)
class Term:
    """One weighted part of the loss that a step descends."""

    name: str
    """Its column in the trace."""
    weight: float
    """Negative to ascend."""
    objective: Objective


def descent(terms: Sequence[Term]) -> tuple[dict[str, float], Tensor]:
    """The value of each term by name, unweighted, and the gradient of their weighted sum, [n]."""
    found = [(term, *term.objective.loss_and_gradient()) for term in terms]
    total = combine([gradient for _, _, gradient in found], [term.weight for term, _, _ in found])
    return {term.name: value for term, value, _ in found}, total
