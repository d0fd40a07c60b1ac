"""Control: a step in a random direction."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import InputError
from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import ControlConfig

if TYPE_CHECKING:
    from ..models.parameters import FlatParameters
    from ..unlearning.walk import Path

__all__ = ["RandomDirection"]

LONGEST = 2.0**20
"""Multiple of the first step at which the search ends, whatever the retain loss."""


@dataclass(frozen=True, kw_only=True)
class RandomDirection(ControlConfig):
    """theta <- theta + t u, u uniform on the unit sphere, for the largest t within the bound.

    What damage of the same size does, when it aims at nothing.
    """

    name: ClassVar[str] = "random_direction"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Control: a random direction, followed as far as the retain bound allows."
    paper: ClassVar[str] = "none: a control of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("retain_check",)
    grid: ClassVar[Grid] = EPSILONS

    first_length: float = 0.1
    """Euclidean length tried first; doubled while the bound holds, then bisected."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.first_length, bool) or not 0 < self.first_length < float("inf"):
            raise InputError(
                f"Bad settings of random_direction: first_length={self.first_length!r} must be a number above 0."
            )

    def build(self, context: BuildContext) -> Built:
        """Moves the adapter in `context.parent`; saves it with the trace of the search. The run's seed decides u.

        Raises:
            InputError: there is no parent adapter, or it or the rows are unusable.
        """
        from ..unlearning.post_hoc import control

        return control(context, self.name, self, lambda parameters: self.path(parameters, context.seed))

    def path(self, parameters: "FlatParameters", seed: int) -> "Path":
        """T -> theta + t u, u being the unit vector that `seed` decides."""
        import torch

        from ..unlearning.walk import Path

        origin = parameters.get()
        noise = torch.randn(parameters.size, generator=torch.Generator().manual_seed(seed))  # on the CPU: same anywhere
        unit = (noise / noise.norm()).to(origin)
        return Path(lambda t: origin + t * unit, self.first_length, self.first_length * LONGEST)
