"""V, aligned minus unaligned weights: of two saved models, or of the aligned one and a stand-in."""

from typing import Any

from torch import Tensor

from ...errors import InputError
from ..method import BuildContext
from ..models.weight_files import WeightFiles
from .projection import Difference
from .pseudo_unaligned import harmful_difference

__all__ = ["alignment_difference"]


def alignment_difference(
    context: BuildContext, method: str, pseudo_steps: int | None, transposed: bool
) -> tuple[Difference, dict[str, Any]]:
    """V by module name, and what to report of how it was made.

    Args:
        context: names the models; of the data, `forget` for the stand-in.
        method: the method's name, for errors.
        pseudo_steps: steps of the stand-in's harmful fine-tuning; None takes the model that the config names.
        transposed: whether weights are stored as [d_in, d_out].

    Raises:
        InputError: there is neither; on reading V, the two models do not fit each other.
    """
    if pseudo_steps is not None:
        return harmful_difference(context, pseudo_steps)
    if context.unaligned is None:
        raise InputError(
            f"The method {method} needs the model '{context.base}' before its alignment. Name it as `unaligned` "
            "beside the model in the config, or set pseudo_unaligned: true (a stand-in by harmful fine-tuning)."
        )
    aligned, unaligned = WeightFiles(context.base, context.revision), WeightFiles(context.unaligned)

    def difference(module: str) -> Tensor:
        one, other = aligned.read(f"{module}.weight"), unaligned.read(f"{module}.weight")
        if one.shape != other.shape:
            raise InputError(
                f"'{module}.weight' is {tuple(one.shape)} in '{context.base}' and {tuple(other.shape)} in "
                f"'{context.unaligned}'. Name the same model before its alignment."
            )
        one -= other
        return one.T if transposed else one

    return difference, {}
