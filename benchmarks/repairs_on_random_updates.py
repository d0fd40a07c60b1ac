"""What Safe Delta's compensations and PEFT's "linear" merge do to random updates: figures of docs/methods/.

Inputs are normal, their covariance a random rotation of eigenvalues from 1 down to 0.001: strongly correlated.
"""

import pandas as pd
import torch
from safebasin.restore.models.lora_files import Factors
from safebasin.restore.repairs.columns import COMPENSATIONS, column_costs, compensated, damped, safety_loss
from safebasin.restore.repairs.merging import cross_terms

DRAWS, WIDTH, RANK = 200, 16, 4


def factors(width: int, rank: int) -> Factors:
    return Factors(torch.randn(rank, width).double(), torch.randn(width, rank).double(), 1.0)


def one_draw(kept_columns: int) -> dict[str, float]:
    update = factors(WIDTH, RANK)
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH).double()).Q
    h = 2 * rotation @ torch.diag(torch.logspace(0, -3, WIDTH).double()) @ rotation.T
    safe = damped(h, 0.01)
    inverse = torch.linalg.inv(safe)
    kept = torch.zeros(WIDTH, dtype=torch.bool)
    kept[torch.randperm(WIDTH)[:kept_columns]] = True
    losses = {
        how: safety_loss(update._replace(a=compensated(update.a, kept, safe, how, inverse)), h) for how in COMPENSATIONS
    }
    costs = column_costs(update, inverse.diagonal())
    return losses | {"predicted": float(costs[kept].sum()), "sum_worse": 100.0 * (losses["sum"] > losses["none"])}


def cross_term_error(rank: int, alpha: float) -> float:
    """Relative Frobenius error, in percent, of PEFT's linear merge of two random updates."""
    parts = [(alpha, factors(64, rank)), (1 - alpha, factors(64, rank))]
    a, b = cross_terms(parts)
    wanted = sum((weight * part.dense for weight, part in parts), torch.zeros(64, 64).double())
    return float(100 * torch.linalg.norm(b.double() @ a.double() - wanted) / torch.linalg.norm(wanted))


def main() -> None:
    torch.manual_seed(0)
    rows = {number: pd.DataFrame([one_draw(number) for _ in range(DRAWS)]).mean() for number in (1, 2, 4, 8)}
    print(pd.DataFrame(rows).T[["none", "sum", "joint", "sum_worse", "predicted"]].round(1).to_string())
    errors = pd.Series([cross_term_error(8, 0.8) for _ in range(20)])
    print(f"peft_linear, rank 8, alpha 0.8: {errors.mean():.0f} % ({errors.min():.0f} to {errors.max():.0f})")


if __name__ == "__main__":
    main()
