"""Safe Delta: the columns of an update that are kept, and the compensation on those that are not.

W' = W_a + D with D = s B A'. The safety loss of a weight is tr(D H D') / 2, where H = 2 E[x x'] over refusals [d, d].
Which entries are kept depends on their columns alone, so all rows keep the same columns S and A' = A T: rank, B stay.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, linalg

from ..models.lora_files import Factors

__all__ = ["Compensation", "Kept", "column_costs", "compensated", "damped", "keep_columns", "prefix", "safety_loss"]

Compensation = Literal["joint", "sum", "none"]
COMPENSATIONS: tuple[Compensation, ...] = ("joint", "sum", "none")


@dataclass(frozen=True)
class Kept:
    """What became of one update."""

    a: Tensor
    """A' [r, d], of the type of A; A itself, bit for bit, where all columns are kept."""
    columns: int
    """Columns kept."""
    cost: float
    """Predicted cost of those, the sum of their costs one by one."""
    total: float
    """That of all columns."""
    losses: dict[str, float]
    """tr(D H D') / 2 under each compensation, with the true H; `tuned` is that of the whole update."""


def damped(h: Tensor, damping: float) -> Tensor:
    """H with that share of its mean diagonal added to the diagonal."""
    return h + damping * h.diagonal().mean() * torch.eye(len(h), dtype=h.dtype, device=h.device)


def safety_loss(factors: Factors, h: Tensor) -> float:
    """tr(D H D') / 2 of the update D, from r x r matrices in float64."""
    a, b = factors.a.to(h), factors.b.to(h)
    return float(factors.scale**2 * ((b.T @ b) * (a @ h @ a.T)).sum() / 2)


def column_costs(factors: Factors, h: Tensor) -> Tensor:
    """Cost of keeping each column alone, [d]: its squared norm over 2 h_j, with h_j = [H^-1]_jj given as `h` [d]."""
    a, b = factors.a.to(h), factors.b.to(h)
    return factors.scale**2 * (a * (b.T @ b @ a)).sum(0) / (2 * h)


def prefix(costs: Tensor, h: Tensor, budget: float) -> Tensor:
    """Which columns are kept, [d] bool: by gain per cost, 2 h_j, from the largest, until the budget is spent."""
    order = torch.sort(h, descending=True, stable=True).indices
    kept = torch.zeros(len(costs), dtype=torch.bool, device=costs.device)
    kept[order] = costs[order].cumsum(0) <= budget * (1 + 1e-12)
    return kept


def compensated(a: Tensor, kept: Tensor, h: Tensor, how: Compensation, inverse: Tensor) -> Tensor:
    """A T [r, d]: the kept columns as they are, the others as the compensation has them.

    Args:
        a: A [r, d].
        kept: S, [d] bool.
        h: H [d, d].
        how: `joint` minimises the safety loss given the kept columns, T_SF = -H_SF H_FF^-1; `sum` adds up what would
            be best for each kept column alone, T_SF = diag(1/h_S) [H^-1]_SF; `none` is 0.
        inverse: H^-1.
    """
    s, f = kept.nonzero().flatten(), (~kept).nonzero().flatten()
    found = a.to(h).clone()
    if how == "none" or not len(s):
        found[:, f] = 0
    elif how == "sum" and len(f):
        found[:, f] = (found[:, s] / inverse.diagonal()[s]) @ inverse[s][:, f]
    elif len(f):
        right = h[f][:, s] @ found[:, s].T
        found[:, f] = -torch.cholesky_solve(right, linalg.cholesky(h[f][:, f])).T
    return found


def keep_columns(
    factors: Factors, h: Tensor, s: float | None, keep: float | None, how: Compensation, damping: float
) -> Kept:
    """Safe Delta for one module.

    Args:
        factors: the update.
        h: H [d, d] in float64, not damped.
        s: the budget as the paper has it, s * mean_j 1 / (2 h_j); or
        keep: the budget as a share of the cost of all columns. One of the two is None.
        how: the compensation of the result.
        damping: share of the mean diagonal of H that is added before it is inverted.
    """
    safe = damped(h, damping)
    inverse = torch.cholesky_inverse(linalg.cholesky(safe))
    single = inverse.diagonal()
    costs = column_costs(factors, single)
    budget = s * float((1 / (2 * single)).mean()) if s is not None else (keep or 0.0) * float(costs.sum())
    kept = prefix(costs, single, budget)
    made = {each: compensated(factors.a, kept, safe, each, inverse) for each in COMPENSATIONS}
    losses: dict[str, float] = {each: safety_loss(factors._replace(a=a), h) for each, a in made.items()}
    a = factors.a if bool(kept.all()) else made[how].to("cpu", factors.a.dtype)
    return Kept(
        a, int(kept.sum()), float(costs[kept].sum()), float(costs.sum()), {**losses, "tuned": safety_loss(factors, h)}
    )
