"""Two repairs in closed form: by ridge regression where refusals go in, and in the adapter's rank space."""

import torch
from torch import Tensor, linalg

__all__ = ["Ridge", "in_rank_space"]


class Ridge:
    """A' = A (I + t H / h)^-1, h being the mean diagonal of H, for any strength t.

    D = s B A' minimises tr(D H D') / 2 + mu |D - s B A|^2 with 2 mu = h / t.
    """

    def __init__(self, a: Tensor, h: Tensor) -> None:
        """Takes A [r, d] and H [d, d]; H is decomposed once."""
        mean = h.diagonal().mean()
        self.eigenvalues, self._basis = linalg.eigh(h / mean if mean > 0 else h)
        self._turned, self._dtype = a.to(h) @ self._basis, a.dtype

    def at(self, strength: float) -> Tensor:
        """A' [r, d] on the CPU, of the type of A."""
        shrunk = self._turned / (1 + strength * self.eigenvalues.clamp_min(0))
        found: Tensor = (shrunk @ self._basis.T).to("cpu", self._dtype)
        return found


def in_rank_space(b: Tensor, task: Tensor, safety: Tensor, strength: float, damping: float = 1e-6) -> Tensor:
    """B' = B G_t (G_t + lambda G_s)^-1, which minimises |(B' - B) A X_t|^2 + lambda |B' A X_s|^2.

    Args:
        b: B [d_out, r].
        task: G_t = E[A x (A x)'] over task tokens, [r, r].
        safety: G_s, the same over tokens of refusals.
        strength: lambda in units of tr(G_t) / tr(G_s).
        damping: share of the mean diagonal of G_t that is added to it: what no token reaches stays as it is.
    """
    least = torch.finfo(task.dtype).tiny
    kept = task + (damping * task.diagonal().mean()).clamp_min(least) * torch.eye(len(task)).to(task)
    total = float(safety.trace())
    weight = strength * float(task.trace()) / total if total > 0 else 0.0
    found: Tensor = linalg.solve(kept + weight * safety, kept @ b.to(kept).T).T
    return found.to("cpu", b.dtype)
