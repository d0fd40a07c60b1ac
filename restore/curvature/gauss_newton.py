"""Gauss-Newton products in the space of the adapter, and their damped inverse on a Krylov space."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..losses.label_logits import MicroBatch
from ..losses.objective import TokenMeanLoss, evaluation_mode
from ..models.parameters import FlatParameters
from ..models.quantised import forward_epsilon
from ..models.vectors import combine, dot, dots

__all__ = ["DampedGaussNewton", "GaussNewton", "krylov_space"]

SHORTENINGS = 4
"""Times that a step is shortened, at most."""
SATURATED = 0.3
"""Logits that change by this share of their size no longer change in proportion to the step: it is measured again."""
EXHAUSTED = 1e-5
"""A Krylov space has no further direction where what a product adds to it is this share of the product."""


class GaussNewton:
    """G = sum_k (w_k / T_k) sum_t J_t' (diag(p_t) - p_t p_t') J_t over the T_k label tokens of each loss k.

    J_t is the Jacobian of token t's logits by the adapter's parameters and p_t its probabilities. G is the Hessian of
    the losses without the curvature of the logits themselves; positive semidefinite; the Fisher matrix of the model's
    own predictions; the same for cross-entropy and for a divergence from fixed targets (Schraudolph 2002).

    Jv is the difference quotient of the logits along v, so that a product takes two forward passes and one backward
    pass over a micro-batch, the memory of a training step, and nothing that a training step does not need: any
    attention kernel, quantised weights and checkpointing will do. The step is sqrt(machine epsilon) of the parameters'
    length, the usual compromise between rounding and linearising, or less where it would change the logits of the first
    micro-batch by more than that share of their own size: in bfloat16, 9 % of the parameters are a long way.
    """

    def __init__(self, parameters: FlatParameters, losses: Sequence[tuple[float, TokenMeanLoss]]) -> None:
        """Products are with G at the parameters as they stand when the product is taken.

        Args:
            parameters: theta, [n].
            losses: weights w_k, at least 0, and losses.
        """
        self._parameters, self._losses = parameters, losses
        self.relative_change = max((forward_epsilon(loss.model) for _, loss in losses), default=0.0) ** 0.5
        self.products = 0
        self._at: tuple[Tensor, Tensor] | None = None  # parameters, and logits of the first micro-batch there

    def product(self, v: Tensor) -> Tensor:
        """G v for v of shape [n]; the parameters stay as they are, bit for bit."""
        total, origin = torch.zeros_like(v), self._parameters.get()
        length = dot(v, v) ** 0.5
        if not length > 0:
            return total
        with self._parameters.preserved() as snapshot:
            step = self._step(v, origin) / length
            moved = combine([origin, v], [1.0, step])
            for weight, loss, batch in self._parts():
                self._parameters.set(moved)
                along = self._logits(loss, batch)
                self._parameters.restore(snapshot)
                total.add_(self._pulled_back(loss, batch, along, step), alpha=weight)
        self.products += 1
        return total

    def _step(self, v: Tensor, origin: Tensor) -> float:
        """The length of the step along v; leaves the parameters moved."""
        step: float = self.relative_change * max(dot(origin, origin) ** 0.5, self.relative_change)
        _, loss, batch = next(self._parts())
        if self._at is None or not torch.equal(self._at[0], origin):
            self._at = origin, self._logits(loss, batch)
        logits, length = self._at[1], dot(v, v) ** 0.5
        for _ in range(SHORTENINGS):
            self._parameters.set(combine([origin, v], [1.0, step / length]))
            change = float((self._logits(loss, batch) - logits).std() / logits.std())
            if not math.isfinite(change):
                step /= 10
                continue
            if change > self.relative_change:
                step *= self.relative_change / change
            if change < SATURATED:
                break
        return step

    @staticmethod
    def _logits(loss: TokenMeanLoss, batch: MicroBatch) -> Tensor:
        """Of the parameters as they stand, [labels, V] float32."""
        with evaluation_mode(loss.model), torch.no_grad():
            return loss.label_logits(batch).logits.float()

    def _parts(self) -> Iterator[tuple[float, TokenMeanLoss, MicroBatch]]:
        for weight, loss in self._losses:
            for batch in loss.batches:
                yield weight / loss.count, loss, batch

    def _pulled_back(self, loss: TokenMeanLoss, batch: MicroBatch, along: Tensor, step: float) -> Tensor:
        """J' (diag(p) - p p') Jv of one micro-batch, [n]; `along` are its logits a `step` along v, [labels, V]."""
        with evaluation_mode(loss.model), torch.enable_grad():
            logits = loss.label_logits(batch).logits
            change = along.sub_(logits.detach().float()).div_(step)
            shares = logits.detach().float().softmax(1)
            change = change.sub_((shares * change).sum(1, keepdim=True)).mul_(shares)
            if not logits.requires_grad:  # no logit depends on the parameters
                return torch.zeros(self._parameters.size, device=self._parameters.device)
            self._parameters.zero_grad()
            logits.backward(change.to(logits))  # reentrant checkpointing hides the parameters from autograd.grad
        found = self._parameters.gradient()
        self._parameters.zero_grad()
        return found


def krylov_space(
    product: Callable[[Tensor], Tensor], start: Tensor, products: int, enough: Callable[[Tensor], bool]
) -> tuple[Tensor, Tensor]:
    """The Lanczos process with full reorthogonalisation: A on the span of start, A start, A^2 start, ...

    Args:
        product: v [n] -> A v, A symmetric up to rounding.
        start: [n], not zero.
        products: how many are taken, at most.
        enough: asked after each product, with the tridiagonal matrix so far, whether to end.

    Returns:
        An orthonormal basis V [k, n] that begins with start, and V'AV [k, k] tridiagonal float64.
    """
    basis = [start / dot(start, start) ** 0.5]
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(basis[-1])
        diagonal.append(dot(basis[-1], image))
        size = dot(image, image) ** 0.5
        for _ in range(2):  # twice is enough (Parlett)
            shares = dots(torch.stack(basis), image)
            image = combine([image, *basis], [1.0, *(-share for share in shares)])
        left = dot(image, image) ** 0.5
        matrix = _tridiagonal(diagonal, beside)
        if len(basis) >= products or left <= EXHAUSTED * size or enough(matrix):
            return torch.stack(basis), matrix
        beside.append(left)
        basis.append(image / left)


def _tridiagonal(diagonal: Sequence[float], beside: Sequence[float]) -> Tensor:
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if beside:
        off = torch.diag(torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64), 1)
        matrix = matrix + off + off.T
    return matrix


class DampedGaussNewton:
    """(G + floor I) as a `Curvature`: exact on the Krylov space of the first vector asked for, `floor` outside it.

    The space does not depend on the damping, so that the inverse can be taken again with another `tightness` without
    another product (the shift invariance of Krylov spaces). On its first vector the inverse is what as many steps of
    conjugate gradients give.
    """

    def __init__(
        self, matrix: GaussNewton, gradient: Tensor, damping: float, products: int = 3, tolerance: float = 0.0
    ) -> None:
        """Spans the space with the gradient.

        Args:
            matrix: G.
            gradient: [n]; the start of the space, and the direction whose curvature `damping` is a share of.
            damping: added curvature, as a share of g'Gg/g'g.
            products: at most so many.
            tolerance: ends where the last product adds less than this share to the fall of the quadratic model.
        """
        self._falls = [0.0]
        self._share, self._tolerance = damping, tolerance
        start = gradient if bool(gradient.any()) else torch.ones_like(gradient)
        self._basis, self._inner = krylov_space(matrix.product, start, products, self._enough)
        self.products = matrix.products
        self.tightness = 1.0

    @property
    def floor(self) -> float:
        """The damping as it stands."""
        return self._floor(self._inner) * self.tightness

    def _floor(self, inner: Tensor) -> float:
        return self._share * max(float(inner[0, 0]), 0.0) or 1.0

    def _enough(self, inner: Tensor) -> bool:
        """Whether the last product added little to e1'(T + floor)^-1 e1, the fall of the model up to a constant."""
        first = torch.zeros(len(inner), dtype=torch.float64)
        first[0] = 1.0
        self._falls.append(float(self._solve(inner, self._floor(inner), first)[0]))
        return self._falls[-1] - self._falls[-2] < self._tolerance * self._falls[-1]

    @staticmethod
    def _solve(inner: Tensor, floor: float, v: Tensor) -> Tensor:
        """(T + floor)^-1 v; rounding may leave T an eigenvalue just below 0, which counts as 0."""
        values, vectors = torch.linalg.eigh(inner)
        found: Tensor = vectors @ ((vectors.T @ v) / (values.clamp(min=0.0) + floor))
        return found

    def inverse_product(self, v: Tensor) -> Tensor:
        """(G + floor I)^-1 v, [n]: on the space as it is there, and v / floor of what lies outside."""
        inside = torch.tensor(dots(self._basis, v), dtype=torch.float64)
        outside = combine([v, *self._basis], [1.0, *(-inside).tolist()])
        # What is left of the gradient is rounding, which a low floor would blow up.
        known = dot(outside, outside) <= EXHAUSTED**2 * dot(v, v)
        on_basis = self._solve(self._inner, self.floor, inside)
        return combine([outside, *self._basis], [0.0 if known else 1 / self.floor, *on_basis.tolist()])

    def bend(self, step: Tensor) -> float:
        """S'Gs for a step s, G on the space."""
        inside = torch.tensor(dots(self._basis, step), dtype=torch.float64)
        return float(inside @ self._inner @ inside)

    def report(self) -> dict[str, float]:
        """The damping as it stands, products, and the largest curvature found."""
        return {
            "damping": self.floor,
            "products": self.products,
            "largest_curvature": float(torch.linalg.eigvalsh(self._inner)[-1]),
        }
