"""Negative preference optimization: gradient ascent that lets go of what is already forgotten."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...errors import InputError
from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import RetainedUnlearnConfig

if TYPE_CHECKING:
    from ..losses.of_model import Losses
    from ..unlearning.steps import Terms

__all__ = ["Npo"]


@dataclass(frozen=True, kw_only=True)
class Npo(RetainedUnlearnConfig):
    """Descends forget_weight * L_NPO + retain_weight * L_retain, the tuned model being the reference."""

    name: ClassVar[str] = "npo"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Unlearning: negative preference optimization with a retain term (NPO+GD)."
    paper: ClassVar[str] = "arXiv 2404.05868"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("forget", "curvature_forget", "retain_1", "retain_2", "retain_check")
    grid: ClassVar[Grid] = EPSILONS

    beta: float = 0.1
    """Inverse temperature; the smaller, the more it is gradient ascent. The paper's and open-unlearning's value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.beta, bool) or not 0 < self.beta < float("inf"):
            raise InputError(f"Bad settings of npo: beta={self.beta!r} must be a number above 0.")

    def build(self, context: BuildContext) -> Built:
        """Unlearns from the adapter in `context.parent`; saves it with `restoration_trace.json`.

        Raises:
            InputError: there is no parent adapter, or rows or model are unusable.
        """
        from ..unlearning.post_hoc import unlearn

        return unlearn(context, self.name, self, self.terms)

    def terms(self, losses: "Losses") -> "Terms":
        """forget_weight * L_NPO + retain_weight * L_retain; the model as it is now becomes the reference."""
        from ..losses.npo import NpoLoss
        from ..losses.terms import Term
        from ..unlearning.steps import retain_terms

        forget = Term("npo_loss", self.forget_weight, NpoLoss(losses, "forget", self.beta))
        retain = retain_terms(losses, self)
        return lambda iteration, step: (forget, *retain(iteration, step))
