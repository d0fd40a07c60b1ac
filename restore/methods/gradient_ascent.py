"""Gradient ascent on the forget loss: the plainest unlearning baseline."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import UnlearnConfig

if TYPE_CHECKING:
    from ..losses.of_model import Losses
    from ..unlearning.steps import Terms

__all__ = ["GradientAscent"]


@dataclass(frozen=True, kw_only=True)
class GradientAscent(UnlearnConfig):
    """Ascends the mean loss per token of the harmful answers, inside the bound on the retain loss."""

    name: ClassVar[str] = "gradient_ascent"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Unlearning: steps up the gradient of the forget loss inside the retain bound."
    paper: ClassVar[str] = "arXiv 2210.01504"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("forget", "curvature_forget", "retain_check")
    grid: ClassVar[Grid] = EPSILONS

    def build(self, context: BuildContext) -> Built:
        """Unlearns from the adapter in `context.parent`; saves it with `restoration_trace.json`.

        Raises:
            InputError: there is no parent adapter, or rows or model are unusable.
        """
        from ..unlearning.post_hoc import unlearn

        return unlearn(context, self.name, self, self.terms)

    def terms(self, losses: "Losses") -> "Terms":
        """-L_forget."""
        from ..losses.terms import Term

        forget = Term("forget_loss", -1.0, losses.on("forget"))
        return lambda iteration, step: (forget,)
