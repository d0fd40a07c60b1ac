"""Exact Gauss-Newton products in the space of the adapter, and their inverse by conjugate gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import InputError
from .label_logits import MicroBatch
from .objective import TokenMeanLoss, evaluation_mode
from .parameters import FlatParameters
from .vectors import combine, dot

__all__ = ["DampedGaussNewton", "GaussNewton", "conjugate_gradients"]

TWICE_DIFFERENTIABLE = ("sdpa", "eager")
"""Attention implementations whose backward pass has a gradient of its own."""

Graph = tuple[Tensor, Tensor, Sequence[Tensor], Tensor]
"""Logits z [n, V]; a stand-in u for their gradient; J'u as a function of u; the probabilities [n, V]."""


class GaussNewton:
    """G = sum_k (w_k / T_k) sum_t J_t' (diag(p_t) - p_t p_t') J_t over the T_k label tokens of each loss k.

    J_t is the Jacobian of token t's logits by the adapter's parameters and p_t its probabilities. G is the Hessian of
    the losses without the curvature of the logits themselves; positive semidefinite; the Fisher matrix of the model's
    own predictions; the same for cross-entropy and for a divergence from fixed targets (Schraudolph 2002).

    A product takes one forward pass and three of about the cost of a backward pass: J'u as a function of u, its
    derivative along v, which is Jv, and J' once more. With `keep_graphs` only the last two.
    """

    def __init__(
        self, parameters: FlatParameters, losses: Sequence[tuple[float, TokenMeanLoss]], keep_graphs: bool = False
    ) -> None:
        """Products are with G at the parameters as they stand now, wherever they move later.

        Args:
            parameters: theta, [n].
            losses: weights w_k, at least 0, and losses.
            keep_graphs: holds the graphs of all micro-batches between products.

        Raises:
            InputError: the model's attention or checkpointing has no second derivatives.
        """
        for _, loss in losses:
            _check_twice_differentiable(loss.model)
        self._parameters, self._losses = parameters, losses
        self._origin = parameters.snapshot()
        self._graphs = [self._graph(loss, batch) for _, loss, batch in self._parts()] if keep_graphs else None
        self._versions = self._versions_now()
        self.products = 0

    def _parts(self) -> Iterator[tuple[float, TokenMeanLoss, MicroBatch]]:
        for weight, loss in self._losses:
            for batch in loss.batches:
                yield weight / loss.count, loss, batch

    def _graph(self, loss: TokenMeanLoss, batch: MicroBatch) -> Graph:
        with _twice_differentiable(loss.model):
            logits = loss.label_logits(batch).logits.float()
            stand_in = torch.zeros_like(logits, requires_grad=True)
            back = torch.autograd.grad(
                logits, self._parameters.tensors, stand_in, create_graph=True, materialize_grads=True
            )
        return logits, stand_in, back, logits.detach().softmax(1)

    def product(self, v: Tensor) -> Tensor:
        """G v for v of shape [n]."""
        total = torch.zeros_like(v)
        along = self._parameters.parts(v)
        if self._versions_now() != self._versions:
            self._graphs = None  # they hold the parameters themselves, which have been written to since
        with nullcontext() if self._graphs else self._at_origin():
            for number, (weight, loss, batch) in enumerate(self._parts()):
                graph = self._graphs[number] if self._graphs else self._graph(loss, batch)
                with _twice_differentiable(loss.model):  # checkpointed layers run again in the backward pass
                    total.add_(self._micro_product(graph, along), alpha=weight)
        self.products += 1
        return total

    def _micro_product(self, graph: Graph, along: Sequence[Tensor]) -> Tensor:
        logits, stand_in, back, shares = graph
        used = [(part, v) for part, v in zip(back, along, strict=True) if part.requires_grad]
        if not used:  # no logit depends on the parameters
            return torch.zeros(self._parameters.size, device=self._parameters.device)
        (change,) = torch.autograd.grad([part for part, _ in used], stand_in, [v for _, v in used], retain_graph=True)
        change = shares * change
        change = change - shares * change.sum(1, keepdim=True)
        found = torch.autograd.grad(
            logits, self._parameters.tensors, change, retain_graph=self._graphs is not None, materialize_grads=True
        )
        return self._parameters.flatten(found)

    def _versions_now(self) -> list[int]:
        """Counts of the writes to each parameter."""
        return [parameter._version for parameter in self._parameters.tensors]

    @contextmanager
    def _at_origin(self) -> Iterator[None]:
        with self._parameters.preserved():
            self._parameters.restore(self._origin)
            yield


@contextmanager
def _twice_differentiable(model: Any) -> Iterator[None]:
    with evaluation_mode(model), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def _check_twice_differentiable(model: Any) -> None:
    kind = getattr(model.config.get_text_config(), "_attn_implementation", "eager")
    if kind not in TWICE_DIFFERENTIABLE:
        raise InputError(
            f"The model's attention '{kind}' has no second derivatives, which estimator=gauss_newton needs. Load the "
            "model with attn_implementation='sdpa', or use estimator=lbfgs."
        )
    for module in model.modules():
        function = getattr(module, "_gradient_checkpointing_func", None)
        if getattr(module, "gradient_checkpointing", False) and getattr(function, "keywords", {}).get("use_reentrant"):
            raise InputError(
                "Reentrant gradient checkpointing has no second derivatives, which estimator=gauss_newton needs. "
                "Enable it with gradient_checkpointing_kwargs={'use_reentrant': False}, or use estimator=lbfgs."
            )


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float
) -> tuple[Tensor, float]:
    """Solves A x = b for positive definite A (Hestenes & Stiefel 1952), from x = 0.

    Args:
        product: v [n] -> A v.
        b: [n].
        iterations: products, at most.
        tolerance: ends where the residual is this share of b.

    Returns:
        x, and the share of b that the residual is. Every iterate has b'x > 0, so x is a direction of descent whenever
        it ends.
    """
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    start = square = dot(b, b)
    for _ in range(iterations):
        if square <= tolerance**2 * start:
            break
        image = product(direction)
        bend = dot(direction, image)
        if not bend > 0:  # rounding, or A is not positive definite
            break
        x.add_(direction, alpha=square / bend)
        residual.sub_(image, alpha=square / bend)
        before, square = square, dot(residual, residual)
        direction = combine([residual, direction], [1.0, square / before])
    return x, (square / start) ** 0.5 if start > 0 else 0.0


class DampedGaussNewton:
    """G plus damping, as a `Curvature`."""

    def __init__(
        self, matrix: GaussNewton, gradient: Tensor, damping: float, iterations: int = 20, tolerance: float = 0.01
    ) -> None:
        """Takes one product, to scale the damping.

        Args:
            matrix: G.
            gradient: [n]; the direction whose curvature `damping` is a share of.
            damping: added curvature, as a share of g'Gg/g'g.
            iterations: of conjugate gradients, per solution.
            tolerance: of conjugate gradients.
        """
        self._matrix, self._iterations, self._tolerance = matrix, iterations, tolerance
        along = dot(gradient, matrix.product(gradient)) / max(dot(gradient, gradient), 1e-30)
        self.floor = damping * along or 1.0
        self._residual = 0.0

    def product(self, v: Tensor) -> Tensor:
        """(G + floor I) v, [n]."""
        return self._matrix.product(v).add_(v, alpha=self.floor)

    def inverse_product(self, v: Tensor) -> Tensor:
        """(G + floor I)^-1 v by conjugate gradients, [n]."""
        found, self._residual = conjugate_gradients(self.product, v, self._iterations, self._tolerance)
        return found

    def report(self) -> dict[str, float]:
        """Damping, products so far, and the residual of the last solution."""
        return {"damping": self.floor, "products": self._matrix.products, "residual": self._residual}
