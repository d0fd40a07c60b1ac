"""The interface behind which estimates of curvature can be swapped."""

from typing import Protocol

from torch import Tensor

__all__ = ["Curvature"]


class Curvature(Protocol):
    """An estimate of a loss's curvature at some parameters: a positive definite matrix of n x n."""

    tightness: float
    """Multiplies what the estimate does not know of the curvature, 1 at first: the damping, or the whole matrix where
    there is no damping. A larger one makes shorter, safer updates; the inverse may be taken anew at no cost."""

    def inverse_product(self, v: Tensor) -> Tensor:
        """The inverse of the matrix times v, for v of shape [n]."""
        ...

    def bend(self, step: Tensor) -> float:
        """S'Cs for a step s of shape [n], C the curvature without damping and without `tightness`."""
        ...

    def report(self) -> dict[str, float]:
        """Numbers for the trace."""
        ...
