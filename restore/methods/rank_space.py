"""Rank space: reweights the directions that the adapter reads, between task and refusals."""

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..method import EPSILONS, BuildContext, Built, Grid, Stage
from ..repairs.config import StrengthConfig

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.lora_files import Factors, LoraFiles
    from ..repairs.refusals import Refusals

__all__ = ["RankSpace"]


@dataclass(frozen=True, kw_only=True)
class RankSpace(StrengthConfig):
    """B <- B G_t (G_t + lambda G_s)^-1, the second moments of A x over task tokens and over tokens of refusals.

    `strength` is lambda in units of tr(G_t) / tr(G_s), module by module; `rows` task rows are read too, at most.
    """

    name: ClassVar[str] = "rank_space"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Rank space (ours): weighs the adapter's own directions, task against refusals; r x r."
    paper: ClassVar[str] = "none: a method of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety", "retain_1", "retain_2", "retain_check")
    grid: ClassVar[Grid] = EPSILONS

    def build(self, context: BuildContext) -> Built:
        """Repairs the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter, it does not fit the base, or rows are missing or unusable.
        """
        from ..repairs.closed_forms import in_rank_space
        from ..repairs.parent import open_parent
        from ..repairs.refusals import Refusals

        parent = open_parent(context, self.name)
        factors, refusals = parent.factors, Refusals(context, self.rows, self.max_new_tokens)
        safety = dict(refusals.moments(factors, projected=True))
        task, number = self._task(context, factors, refusals)
        details: dict[str, Any] = {"refusals": len(refusals.rows), "task_rows": number}

        def repaired(strength: float) -> "LoraFiles":
            if not strength:
                return parent
            return parent.with_pairs(
                {name: (a, in_rank_space(b, task[name], safety[name], strength)) for name, (a, b, _) in factors.items()}
            )

        details |= self.save(context, repaired)
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
