"""Ridge: the update nearest to the fine-tuned one that does little to what goes in on refusals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..method import BuildContext, Built, Stage
from ..unlearning.config import ControlConfig, check_settings

if TYPE_CHECKING:
    from ..models.lora_files import LoraFiles

__all__ = ["Ridge"]

FIRST, MOST = 1.0, 1e6
"""The strength that the search begins with, and where it ends."""


@dataclass(frozen=True, kw_only=True)
class Ridge(ControlConfig):
    """A <- A (I + t H / h)^-1, H the second moment of a module's inputs on refusals and h its mean diagonal.

    The settings of the search count with `strength: null` alone.
    """

    name: ClassVar[str] = "ridge"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Ridge (ours): shrinks the update where refusals' inputs lie, in closed form; same rank."
    paper: ClassVar[str] = "none: a method of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety", "retain_check")
    """With a `strength`, an instance needs ("safety",)."""

    strength: float | None = None
    """t; null takes the largest within the retain bound."""
    rows: int = 128
    """Safety rows, at most."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = () if self.strength is None else ("strength",)
        check_settings(self, counts=("rows", "max_new_tokens"), not_negative=numbers)
        if self.strength is not None:
            object.__setattr__(self, "needs", ("safety",))

    @property
    def bounded(self) -> bool:
        """Whether `epsilon` decides the result."""
        return self.strength is None

    def build(self, context: BuildContext) -> Built:
        """Repairs the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter, it does not fit the base, or there are no refusals.
        """
        from ..repairs import closed_forms
        from ..repairs.parent import open_parent
        from ..repairs.refusals import Refusals
        from ..repairs.strength import strongest

        parent = open_parent(context, self.name)
        factors, refusals = parent.factors, Refusals(context, self.rows, self.max_new_tokens)
        solved = {name: closed_forms.Ridge(factors[name].a, 2 * moment) for name, moment in refusals.moments(factors)}
        details: dict[str, Any] = {"refusals": len(refusals.rows), "strength": self.strength}

        def repaired(strength: float) -> "LoraFiles":
            if not strength:
                return parent
            return parent.with_pairs({name: (one.at(strength), factors[name].b) for name, one in solved.items()})

        if self.strength is None:
            found = strongest(context, self.name, self, repaired, FIRST, MOST).details
            details |= {**found, "strength": found["multiple"]}
        else:
            repaired(self.strength).save(context.output, context.base)
        return Built(safety_examples=len(refusals.prompts), details=details)
