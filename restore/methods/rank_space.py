"""Rank space: reweights the directions that the adapter reads, between task and refusals."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..method import BuildContext, Built, Stage
from ..unlearning.config import ControlConfig, check_settings

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.lora_files import Factors, LoraFiles
    from ..repairs.refusals import Refusals

__all__ = ["RankSpace"]

FIRST, MOST = 1.0, 1e6
"""The strength that the search begins with, and where it ends."""


@dataclass(frozen=True, kw_only=True)
class RankSpace(ControlConfig):
    """B <- B G_t (G_t + lambda G_s)^-1, the second moments of A x over task tokens and over tokens of refusals.

    The settings of the search count with `strength: null` alone.
    """

    name: ClassVar[str] = "rank_space"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Rank space (ours): weighs the adapter's own directions, task against refusals; r x r."
    paper: ClassVar[str] = "none: a method of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety", "retain_1", "retain_2", "retain_check")
    """With a `strength`, an instance does not need `retain_check`."""

    strength: float | None = None
    """lambda in units of tr(G_t) / tr(G_s), module by module; null takes the largest within the retain bound."""
    rows: int = 128
    """Safety rows, and task rows, at most."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = () if self.strength is None else ("strength",)
        check_settings(self, counts=("rows", "max_new_tokens"), not_negative=numbers)
        if self.strength is not None:
            object.__setattr__(self, "needs", ("safety", "retain_1", "retain_2"))

    @property
    def bounded(self) -> bool:
        """Whether `epsilon` decides the result."""
        return self.strength is None

    def build(self, context: BuildContext) -> Built:
        """Repairs the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter, it does not fit the base, or rows are missing or unusable.
        """
        from ..repairs.closed_forms import in_rank_space
        from ..repairs.parent import open_parent
        from ..repairs.refusals import Refusals
        from ..repairs.strength import strongest

        parent = open_parent(context, self.name)
        factors, refusals = parent.factors, Refusals(context, self.rows, self.max_new_tokens)
        safety = dict(refusals.moments(factors, projected=True))
        task, number = self._task(context, factors, refusals)
        details: dict[str, Any] = {"refusals": len(refusals.rows), "task_rows": number, "strength": self.strength}

        def repaired(strength: float) -> "LoraFiles":
            if not strength:
                return parent
            return parent.with_pairs(
                {name: (a, in_rank_space(b, task[name], safety[name], strength)) for name, (a, b, _) in factors.items()}
            )

        if self.strength is None:
            found = strongest(context, self.name, self, repaired, FIRST, MOST).details
            details |= {**found, "strength": found["multiple"]}
        else:
            repaired(self.strength).save(context.output, context.base)
        return Built(safety_examples=len(refusals.prompts), details=details)

    def _task(
        self, context: BuildContext, factors: "dict[str, Factors]", refusals: "Refusals"
    ) -> "tuple[dict[str, Tensor], int]":
        """G_t of the fine-tuned model, which wraps the aligned one, and the number of rows."""
        from ..losses.encoding import encode_all
        from ..models.loading import load_adapter

        known = [*context.data["retain_1"], *context.data["retain_2"]]
        drawn = random.Random(f"{context.seed} rank_space").sample(known, min(self.rows, len(known)))
        rows = encode_all(refusals.tokenizer, drawn, "retain", context.max_length)
        tuned = load_adapter(refusals.model, str(context.parent))
        return dict(refusals.moments_of(tuned, rows, factors, projected=True)), len(rows)
