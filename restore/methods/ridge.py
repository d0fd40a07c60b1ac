"""Ridge: the update nearest to the fine-tuned one that does little to what goes in on refusals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..repairs.config import StrengthConfig

if TYPE_CHECKING:
    from ..models.lora_files import LoraFiles

__all__ = ["Ridge"]


@dataclass(frozen=True, kw_only=True)
class Ridge(StrengthConfig):
    """A <- A (I + t H / h)^-1, H the second moment of inputs on refusals, h its mean diagonal, t the strength."""

    name: ClassVar[str] = "ridge"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Ridge (ours): shrinks the update where refusals' inputs lie, in closed form; same rank."
    paper: ClassVar[str] = "none: a method of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety", "retain_check")
    grid: ClassVar[Grid] = EPSILONS

    def build(self, context: BuildContext) -> Built:
        """Repairs the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter, it does not fit the base, or there are no refusals.
        """
        from ..repairs import closed_forms
        from ..repairs.parent import open_parent
        from ..repairs.refusals import Refusals

        parent = open_parent(context, self.name)
        factors, refusals = parent.factors, Refusals(context, self.rows, self.max_new_tokens)
        solved = {name: closed_forms.Ridge(factors[name].a, 2 * moment) for name, moment in refusals.moments(factors)}
        details: dict[str, Any] = {"refusals": len(refusals.rows)}

        def repaired(strength: float) -> "LoraFiles":
            if not strength:
                return parent
            return parent.with_pairs({name: (one.at(strength), factors[name].b) for name, one in solved.items()})

        details |= self.save(context, repaired)
        return Built(safety_examples=len(refusals.prompts), details=details)
