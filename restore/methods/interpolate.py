"""Control: a point on the straight line from the fine-tuned weights to the base model's."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..unlearning.config import ControlConfig

if TYPE_CHECKING:
    from ..models.parameters import FlatParameters
    from ..unlearning.walk import Path

__all__ = ["Interpolate"]


@dataclass(frozen=True, kw_only=True)
class Interpolate(ControlConfig):
    """W <- (1 - t) W_tuned + t W_base for the largest t within the bound: B is scaled by 1 - t, A is kept.

    The base model is safe, so any step towards it is: a restoration must do better than this to have found anything.
    """

    name: ClassVar[str] = "interpolate"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Control: linear interpolation to the base model as far as the retain bound allows."
    paper: ClassVar[str] = "none: a control of this project (cf. WiSE-FT, arXiv 2109.01903)"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("retain_check",)
    grid: ClassVar[Grid] = EPSILONS

    def build(self, context: BuildContext) -> Built:
        """Interpolates the adapter in `context.parent`; saves it with the trace of the search.

        Raises:
            InputError: there is no parent adapter, or it or the rows are unusable.
        """
        from ..unlearning.post_hoc import control

        return control(context, self.name, self, self.path)

    def path(self, parameters: "FlatParameters") -> "Path":
        """T -> theta with B scaled by 1 - t, up to the base model at t = 1.

        Raises:
            InputError: the adapter is DoRA, whose weights are not linear in B.
        """
        import torch

        from ..unlearning.walk import Path, check_linear

        check_linear(parameters.names)
        origin = parameters.get()
        named = zip(parameters.names, parameters.snapshot(), strict=True)
        scaled = torch.cat([torch.full_like(part, _is_b(name)).reshape(-1) for name, part in named]).to(origin)
        return Path(lambda t: origin * (1 - t * scaled), 1.0, 1.0)


def _is_b(name: str) -> float:
    return float("lora_B" in name or "lora_embedding_B" in name)
