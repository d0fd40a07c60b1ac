"""Limited-memory BFGS: an inverse Hessian from curvature pairs (appendix C.1 of the paper; Liu & Nocedal 1989)."""

from dataclasses import dataclass
from statistics import median
from typing import Literal

import torch
from torch import Tensor

from ..models.vectors import combine, dot, dots

__all__ = ["CurvatureHistory", "Gamma", "Normalize", "PairOutcome", "Test", "dot"]

Normalize = Literal["joint", "separate"]
Test = Literal["relative", "absolute"]
Gamma = Literal["median", "newest"]
DEGENERATE = 1e-10
"""Steps and gradient changes shorter than this carry no information."""
POWELL = 0.2
"""Powell's constant: a pair's curvature is kept above this share of the curvature that B predicts."""


@dataclass(frozen=True)
class PairOutcome:
    """What became of a pair offered to a history."""

    accepted: bool
    damped: bool
    reason: str = ""
    """Why it was rejected."""


class CurvatureHistory:
    """The last m curvature pairs (s, y), s a step and y the change of the gradient along it.

    They define the BFGS matrices H (of the inverse Hessian) and B = H^-1, started from H0 = gamma*I. H satisfies
    H y = s exactly for the newest pair. For older pairs it does so only where later steps are conjugate to theirs
    (s_i' y_j = 0); n such pairs of a quadratic give its inverse Hessian exactly.

    Attributes:
        damped: number of pairs that Powell damping changed.
        rejected: number of pairs refused.
        tightness: multiplies B in `inverse_product`, and nowhere else.
    """

    def __init__(
        self,
        size: int,
        dimension: int,
        device: torch.device | str = "cpu",
        *,
        normalize: Normalize = "joint",
        curv_tol: float = 1e-6,
        curv_test: Test = "relative",
        powell: bool = True,
        gamma: Gamma = "median",
    ) -> None:
        """Makes room for `size` pairs of `dimension` entries: 8 * size * dimension bytes in one block.

        Args:
            size: m, the number of pairs kept; the oldest gives way.
            dimension: n, the length of a vector.
            device: where the block lives.
            normalize: "joint" divides s and y by the length of s, which leaves H and B unchanged; "separate" makes
                both unit vectors (Algorithm 1, line 20, to the letter), which replaces each curvature by a cosine and
                multiplies the H of a single pair by |y|/|s|.
            curv_tol: a pair counts only if <s,y> exceeds this share of |s||y|.
            curv_test: "absolute" compares <s,y> itself, before any normalisation, as Algorithm 1, line 19; its
                meaning changes with the length of the step.
            powell: blends y with Bs before that test where curvature is low or negative (Powell).
            gamma: how the scale of H0 is chosen, see the attribute.
        """
        self.normalize, self.powell = normalize, powell
        self.curv_tol, self.curv_test, self.gamma_of = curv_tol, curv_test, gamma
        self.damped = self.rejected = 0
        self.tightness = 1.0
        self._block = torch.empty(2, size, dimension, dtype=torch.float32, device=device)
        self._ss = torch.zeros(size, size, dtype=torch.float64)
        self._sy = torch.zeros(size, size, dtype=torch.float64)
        self._yy = torch.zeros(size, size, dtype=torch.float64)
        self._gammas = [0.0] * size
        self._retain = [False] * size
        self._slots: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def gamma(self) -> float:
        """The scale of H0: the median of <s,y>/<y,y> over pairs of the retain sets (over all, where there are none).

        The usual choice, the newest pair, lets the order of the data sets decide.
        """
        if self.gamma_of == "newest" and self._slots:
            return self._gammas[self._slots[-1]]
        from_retain = [self._gammas[slot] for slot in self._slots if self._retain[slot]]
        found = from_retain or [self._gammas[slot] for slot in self._slots]
        return median(found) if found else 1.0

    def report(self) -> dict[str, float]:
        """Numbers for the trace."""
        return {
            "pairs": len(self),
            "pairs_rejected": self.rejected,
            "pairs_damped": self.damped,
            "gamma": self.gamma,
        }

    def add(self, s: Tensor, y: Tensor, retain: bool = True) -> PairOutcome:
        """Offers a pair: degenerate ones are refused, then y is damped, then curvature that is too low is refused.

        Args:
            s: step, [n].
            y: change of the gradient along it, [n].
            retain: whether the gradients are of a retain set; those decide `gamma`.
        """
        s_norm, y_norm = dot(s, s) ** 0.5, dot(y, y) ** 0.5
        if not (s_norm > DEGENERATE and y_norm > DEGENERATE):
            return self._refuse(False, "degenerate")
        if self.curv_test == "absolute" and not dot(s, y) > self.curv_tol:
            return self._refuse(False, "curvature")
        s, y = s / s_norm, y / (s_norm if self.normalize == "joint" else y_norm)
        y, damped = self._damp(s, y)
        self.damped += damped
        sy, yy = dot(s, y), dot(y, y)
        if not sy > 0 or (self.curv_test == "relative" and not sy > self.curv_tol * (dot(s, s) * yy) ** 0.5):
            return self._refuse(damped, "curvature")
        if damped and self.normalize == "separate":
            y, sy, yy = y / yy**0.5, sy / yy**0.5, 1.0
        self._keep(s, y, sy / yy, retain)
        return PairOutcome(True, damped)

    def _refuse(self, damped: bool, reason: str) -> PairOutcome:
        self.rejected += 1
        return PairOutcome(False, damped, reason)

    def _damp(self, s: Tensor, y: Tensor) -> tuple[Tensor, bool]:
        if not self.powell or not self._slots:  # there is no B to blend with before the first pair
            return y, False
        bs = self.product(s)
        expected, found = dot(s, bs), dot(s, y)
        if found >= POWELL * expected:
            return y, False
        share = (1 - POWELL) * expected / (expected - found)
        return share * y + (1 - share) * bs, True

    def _keep(self, s: Tensor, y: Tensor, gamma: float, retain: bool) -> None:
        full = len(self._slots) == self._block.shape[1]
        slot = self._slots.pop(0) if full else len(self._slots)
        self._block[0, slot], self._block[1, slot] = s, y
        self._gammas[slot], self._retain[slot] = gamma, retain
        self._slots.append(slot)
        by_s, by_y = self._inner(s), self._inner(y)
        self._ss[slot, : len(self)] = self._ss[: len(self), slot] = by_s[0]
        self._yy[slot, : len(self)] = self._yy[: len(self), slot] = by_y[1]
        self._sy[slot, : len(self)], self._sy[: len(self), slot] = by_s[1], by_y[0]

    def _inner(self, v: Tensor) -> Tensor:
        """Inner products of v [n] with each s and each y: [2, pairs] float64, by slot."""
        return torch.tensor([dots(kind[: len(self)], v) for kind in self._block], dtype=torch.float64)

    def _sum(self, v: Tensor, on_v: float, on_s: Tensor, on_y: Tensor) -> Tensor:
        """on_v * v plus the pairs weighted by slot, [n]."""
        vectors = [v, *self._block[0, : len(self)], *self._block[1, : len(self)]]
        return combine(vectors, [on_v, *on_s.tolist(), *on_y.tolist()])

    def inverse_product(self, v: Tensor) -> Tensor:
        """H v / tightness for v of shape [n] (two-loop recursion); H is 1 where there are no pairs.

        The result is a sum of v, s_i and y_i: the loops run on its weights (Chen, Wang & Zhou 2014).
        """
        m, gamma = len(self), self.gamma
        with_s, with_y = self._inner(v)
        sy, yy = self._sy[:m, :m], self._yy[:m, :m]
        on_s, on_y = torch.zeros(2, m, dtype=torch.float64)
        shares = torch.zeros(m, dtype=torch.float64)
        for slot in reversed(self._slots):
            shares[slot] = (with_s[slot] + sy[slot] @ on_y) / sy[slot, slot]
            on_y[slot] = -shares[slot]
        on_y *= gamma
        for slot in self._slots:
            back = (gamma * with_y[slot] + yy[slot] @ on_y + sy[:, slot] @ on_s) / sy[slot, slot]
            on_s[slot] = shares[slot] - back
        return self._sum(v, gamma / self.tightness, on_s / self.tightness, on_y / self.tightness)

    def bend(self, step: Tensor) -> float:
        """S'Bs for a step s."""
        return dot(step, self.product(step))

    def product(self, v: Tensor) -> Tensor:
        """B v for v of shape [n], B = H^-1 (compact representation: Byrd, Nocedal & Schnabel 1994, theorem 2.3)."""
        sigma, order = 1 / self.gamma, torch.tensor(self._slots, dtype=torch.long)
        ss, sy = self._ss[order][:, order], self._sy[order][:, order]
        lower = torch.tril(sy, -1)
        middle = torch.cat((torch.cat((sigma * ss, lower), 1), torch.cat((lower.T, -torch.diag(sy.diag())), 1)))
        with_s, with_y = self._inner(v)[:, order]
        found = torch.linalg.solve(middle, torch.cat((sigma * with_s, with_y)))
        on_s, on_y = torch.zeros(2, len(self), dtype=torch.float64)
        on_s[order], on_y[order] = -sigma * found[: len(self)], -found[len(self) :]
        return self._sum(v, sigma, on_s, on_y)
