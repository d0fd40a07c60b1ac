"""Settings of repairs that have one strength, and read the base model's refusals."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..method import BuildContext
from ..unlearning.config import ControlConfig, check_settings

if TYPE_CHECKING:
    from ..models.lora_files import LoraFiles

__all__ = ["StrengthConfig"]

FIRST, MOST = 1.0, 1e6
"""The strength that the search begins with, and where it ends."""


@dataclass(frozen=True, kw_only=True)
class StrengthConfig(ControlConfig):
    """The strength, or the search for it; the settings of the search count with `strength: null` alone."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """With a `strength`, an instance does not need `retain_check`."""

    strength: float | None = None
    """null takes the largest within the retain bound."""
    rows: int = 128
    """Safety rows, at most."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = () if self.strength is None else ("strength",)
        check_settings(self, counts=("rows", "max_new_tokens"), not_negative=numbers)
        if self.strength is not None:
            object.__setattr__(self, "needs", tuple(split for split in self.needs if split != "retain_check"))

    @property
    def bounded(self) -> bool:
        """Whether `epsilon` decides the result."""
        return self.strength is None

    def save(self, context: BuildContext, repaired: "Callable[[float], LoraFiles]") -> dict[str, Any]:
        """Saves the adapter of the strength given, or found; returns what to report of it.

        Args:
            context: as the method's.
            repaired: strength -> the adapter, of one shape for all; at 0 the fine-tuned one's function.
        """
        from .strength import strongest

        if self.strength is None:
            found = strongest(context, self.name, self, repaired, FIRST, MOST).details
            return {**found, "strength": found["multiple"]}
        repaired(self.strength).save(context.output, context.base)
        return {"strength": self.strength}
