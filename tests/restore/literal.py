"""Algorithms 1 and 2 of the paper as they read, with dense matrices."""

from collections.abc import Iterator, Sequence

import torch
from safebasin.restore.losses.objective import Objective
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor

Pairs = list[tuple[Tensor, Tensor]]


def evaluate(theta: FlatParameters, at: Tensor, batch: Objective) -> tuple[float, Tensor]:
    theta.set(at.float())
    loss, gradient = batch.loss_and_gradient()
    return loss, gradient.double()


def in_turns(sets: Sequence[Sequence[Objective]], rates: Sequence[float]) -> Iterator[tuple[Objective, float]]:
    """Round-robin over the data sets; appendix C.1 varies the learning rates across steps, here by round."""
    for turn in range(max(map(len, sets))):
        for batches in sets:
            if turn < len(batches):
                yield batches[turn], rates[turn % len(rates)]


def algorithm_1(
    theta: FlatParameters, batches: Iterator[tuple[Objective, float]], steps: int, epsilon: float, radius: float
) -> tuple[Pairs, list[str]]:
    """The history, and what became of each step. The reduction is predicted to first order (line 10 does not say)."""
    history: Pairs = []
    fates: list[str] = []
    here = theta.get().double()
    for _, (batch, rate) in zip(range(steps), batches, strict=False):
        loss, g = evaluate(theta, here, batch)  # line 6
        d = -rate * g
        d = d * min(1.0, radius / float(d.norm()))  # line 7
        there = here + d  # line 8
        loss_after, g_after = evaluate(theta, there, batch)  # line 9
        ratio = (loss - loss_after) / float(-g @ d)  # line 10
        if ratio < 0.25:  # line 11
            radius = 0.5 * radius
            fates.append("ratio")
            continue
        if ratio > 0.75:  # line 15
            radius = 1.5 * radius
        s, y = there - here, g_after - g  # line 18
        here = there
        if s @ y > epsilon:  # line 19
            history.append((s / s.norm(), y / y.norm()))  # line 20
            fates.append("")
        else:
            fates.append("curvature")
    return history, fates


def inverse_hessian(history: Pairs) -> Tensor:
    """The textbook BFGS matrix from the newest pair's scale."""
    s, y = history[-1]
    h = (s @ y) / (y @ y) * torch.eye(len(s), dtype=torch.float64)
    for s, y in history:
        v = torch.eye(len(s), dtype=torch.float64) - torch.outer(y, s) / (s @ y)
        h = v.T @ h @ v + torch.outer(s, s) / (s @ y)
    return h


def algorithm_2(
    theta: FlatParameters, history: Pairs, forget: Objective, eta: float, shrink: float, sign: float
) -> Tensor:
    """The updated parameters. Line 7 has the sign -1; equations 2, 4 and 5 have +1."""
    here = theta.get().double()
    _, g = evaluate(theta, here, forget)  # lines 3 to 6; line 8 makes their scale immaterial
    direction = sign * inverse_hessian(history) @ g  # line 7
    direction = direction / direction.norm()  # line 8
    return here + eta * direction - shrink * here  # line 11
