"""Inner products and sums of long fp32 vectors in float64, without float64 copies of them."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["combine", "dot", "dots"]

CHUNK = 1 << 20
"""Entries converted to float64 at a time: 8 MiB of them."""


def _chunks(length: int, rows: int = 1) -> Iterator[slice]:
    step = max(1, CHUNK // rows)
    return (slice(begin, begin + step) for begin in range(0, length, step))


def dots(block: Tensor, vector: Tensor) -> list[float]:
    """The inner products of the rows of a block [m, n] with a vector [n], accumulated in float64."""
    total = torch.zeros(len(block), dtype=torch.float64, device=block.device)
    for part in _chunks(len(vector), max(1, len(block))):
        total += block[:, part].double() @ vector[part].double()
    found: list[float] = total.tolist()
    return found


def dot(a: Tensor, b: Tensor) -> float:
    """The inner product of two vectors [n], accumulated in float64."""
    return dots(a[None], b)[0]


def combine(vectors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The weighted sum of vectors [n], taken in float64; in the type of the first."""
    result = torch.empty_like(vectors[0])
    for part in _chunks(len(result)):
        total = vectors[0][part].double() * weights[0]
        for vector, weight in zip(vectors[1:], weights[1:], strict=True):
            total.add_(vector[part], alpha=weight)
        result[part] = total
    return result
