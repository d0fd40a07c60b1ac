"""Gradient difference: ascent on the forget loss together with descent on the retain loss."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import RetainedUnlearnConfig

if TYPE_CHECKING:
    from ..losses.of_model import Losses
    from ..unlearning.steps import Terms

__all__ = ["GradDiff"]


@dataclass(frozen=True, kw_only=True)
class GradDiff(RetainedUnlearnConfig):
    """Descends -forget_weight * L_forget + retain_weight * L_retain, inside the bound on the held-out retain loss."""

    name: ClassVar[str] = "grad_diff"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Unlearning: gradient ascent on forget rows with descent on retain rows."
    paper: ClassVar[str] = "arXiv 2203.12817"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("forget", "curvature_forget", "retain_1", "retain_2", "retain_check")
    grid: ClassVar[Grid] = EPSILONS

    def build(self, context: BuildContext) -> Built:
        """Unlearns from the adapter in `context.parent`; saves it with `restoration_trace.json`.

        Raises:
            InputError: there is no parent adapter, or rows or model are unusable.
        """
        from ..unlearning.post_hoc import unlearn

        return unlearn(context, self.name, self, self.terms)

    def terms(self, losses: "Losses") -> "Terms":
        """-forget_weight * L_forget + retain_weight * L_retain, the latter on a batch for each step."""
        from ..losses.terms import Term
        from ..unlearning.steps import retain_terms

        forget, retain = Term("forget_loss", -self.forget_weight, losses.on("forget")), retain_terms(losses, self)
        return lambda iteration, step: (forget, *retain(iteration, step))
