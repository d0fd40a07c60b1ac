"""The plane of the first two principal components of a few long vectors, exact, by their inner products alone.

    G_ij = <x_i - m, x_j - m>,  G u_k = l_k u_k,  p_k = sum_i u_ik (x_i - m) / sqrt(l_k)

m is the mean of the vectors. G is as large as there are vectors, however long they are; l_k / sum(l) is the share of
the variance that p_k explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import InputError
from ..models.vectors import combine, dot, dots

__all__ = ["PrincipalPlane", "principal_plane"]

FLAT = 1e-10
"""A second component of less than this share of the variance is rounding: the vectors lie on a line."""


@dataclass(frozen=True)
class PrincipalPlane:
    """A plane through the mean of the vectors."""

    origin: Tensor
    """The mean, [n]."""
    axes: Tensor
    """Both components, [2, n], orthonormal; the coordinate of the largest size along each is positive."""
    explained: tuple[float, float]
    """Shares of the variance."""

    def coordinates(self, vectors: Sequence[Tensor]) -> NDArray[np.float64]:
        """Of each vector's projection, [k, 2], in the vectors' own units."""
        return np.array([dots(self.axes, vector - self.origin) for vector in vectors])

    def distances(self, vectors: Sequence[Tensor]) -> NDArray[np.float64]:
        """Of each vector from the plane, [k]."""
        found = []
        for vector in vectors:
            off = vector - self.origin
            a, b = dots(self.axes, off)
            left = combine([off, *self.axes], [1.0, -a, -b])
            found.append(dot(left, left) ** 0.5)
        return np.array(found)

    def at(self, a: float, b: float) -> Tensor:
        """The vector of these coordinates, [n]."""
        return combine([self.origin, *self.axes], [1.0, a, b])


def principal_plane(vectors: Sequence[Tensor]) -> PrincipalPlane:
    """The plane of the first two principal components.

    Args:
        vectors: at least three, [n] fp32 each.

    Raises:
        InputError: they lie on a line, or on one point.
    """
    first, count = vectors[0], len(vectors)
    apart = torch.stack([vector - first for vector in vectors])  # differences are exact where the vectors are near
    inner = np.array([dots(apart, each) for each in apart])
    inner = (inner + inner.T) / 2
    means = inner.mean(0)
    values, shares = np.linalg.eigh(inner - means - means[:, None] + means.mean())
    values, shares = values[::-1].clip(min=0.0), shares[:, ::-1]
    total = float(values.sum())
    if count < 3 or not values[1] > FLAT * total:
        raise InputError(
            f"The {count} visited weights lie on a line, so that they span no plane. Take more steps, or two paths "
            "that differ."
        )
    axes, places = [], shares[:, :2] * np.sqrt(values[:2])
    for k in range(2):
        sign = float(np.sign(places[np.abs(places[:, k]).argmax(), k]))
        weights = sign * (shares[:, k] - shares[:, k].mean()) / np.sqrt(values[k])
        axes.append(combine(list(apart), weights.tolist()))
    origin = combine([first, *apart], [1.0, *([1 / count] * count)])
    return PrincipalPlane(origin, torch.stack(axes), (float(values[0] / total), float(values[1] / total)))
