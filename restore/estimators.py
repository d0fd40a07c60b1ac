"""The interface behind which estimates of curvature can be swapped."""

from typing import Protocol

from torch import Tensor

__all__ = ["Curvature"]


class Curvature(Protocol):
    """An estimate of a loss's curvature at some parameters: a positive definite matrix of n x n."""

    @property
    def floor(self) -> float:
        """The curvature in directions of which the estimate knows nothing, in nats per squared length."""
        ...

    def inverse_product(self, v: Tensor) -> Tensor:
        """The inverse of the matrix times v, for v of shape [n]."""
        ...

    def report(self) -> dict[str, float]:
        """Numbers for the trace."""
        ...
