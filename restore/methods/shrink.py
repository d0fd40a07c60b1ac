"""Control: the adapter's parameters, all made smaller."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import InputError
from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import ControlConfig

if TYPE_CHECKING:
    from ..models.parameters import FlatParameters
    from ..unlearning.walk import Path

__all__ = ["Shrink"]


@dataclass(frozen=True, kw_only=True)
class Shrink(ControlConfig):
    """theta <- (1 - c) theta for the largest c within the bound; W0 + BA becomes W0 + (1 - c)^2 BA.

    What is left of a restoration's effect when its direction is taken away and only its "regularisation" stays.
    """

    name: ClassVar[str] = "shrink"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Control: shrinks the adapter's A and B as far as the retain bound allows."
    paper: ClassVar[str] = "none: a control of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("retain_check",)
    grid: ClassVar[Grid] = EPSILONS

    match_norm: float | None = None
    """Go no further than this Euclidean distance: that of the method which the control is to be compared with."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.match_norm is not None and not 0 < self.match_norm < float("inf"):
            raise InputError(f"Bad settings of shrink: match_norm={self.match_norm!r} must be a number above 0.")

    def build(self, context: BuildContext) -> Built:
        """Shrinks the adapter in `context.parent`; saves it with the trace of the search.

        Raises:
            InputError: there is no parent adapter, or it or the rows are unusable.
        """
        from ..unlearning.post_hoc import control

        return control(context, self.name, self, self.path)

    def path(self, parameters: "FlatParameters") -> "Path":
        """C -> (1 - c) theta, up to c = 1 or the distance `match_norm`.

        Raises:
            InputError: the adapter is DoRA, whose magnitudes would vanish with the rest.
        """
        from ..unlearning.walk import Path, check_linear

        check_linear(parameters.names)
        origin = parameters.get()
        norm = float(origin.double().norm())
        last = 1.0 if self.match_norm is None or norm == 0 else min(1.0, self.match_norm / norm)
        return Path(lambda c: origin * (1 - c), last, last)
