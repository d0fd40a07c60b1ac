"""SafeMERGE: merges a safety adapter into the modules whose update points away from the alignment."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...errors import InputError
from ..method import BuildContext, Built, Grid, Stage
from ..unlearning.config import check_settings

if TYPE_CHECKING:
    from ..models.lora_files import Factors

__all__ = ["SafeMerge"]


@dataclass(frozen=True, kw_only=True)
class SafeMerge:
    """Update <- alpha * update + (1 - alpha) * safety update, in modules whose cosine as of Safe LoRA is below tau."""

    name: ClassVar[str] = "safe_merge"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "SafeMERGE: merges a LoRA trained on refusals into modules that left the alignment."
    paper: ClassVar[str] = "arXiv 2503.17239"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("safety",)
    """With `pseudo_unaligned`, an instance needs `forget` too."""
    grid: ClassVar[Grid] = (
        {},
        {"threshold": 0.5},
        {"threshold": 0.6},
        {"threshold": 0.7},
        {"threshold": 1.0},
        {"threshold": 1.0, "alpha": 0.5},
    )

    alpha: float = 0.8
    """Weight of the fine-tuning's update. 0 puts the safety adapter in its place."""
    threshold: float = 0.35
    """tau: modules with a cosine below this are merged; 1 merges (nearly) all."""
    merge: Literal["exact", "peft_linear"] = "exact"
    """`exact` is the weighted sum, of the sum of the ranks; `peft_linear` is what was published: of the same rank,
    with cross terms."""
    safety_steps: int = 30
    """Optimizer steps of the safety adapter, of at most 16 rows."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""
    pseudo_unaligned: bool = False
    """Makes the unaligned model by a short harmful fine-tuning, as in safe_lora."""
    pseudo_steps: int = 30
    """Optimizer steps of it."""

    def __post_init__(self) -> None:
        check_settings(
            self, counts=("safety_steps", "max_new_tokens", "pseudo_steps"), not_negative=("alpha",),
            choices={"merge": ("exact", "peft_linear")},
        )  # fmt: skip
        if not self.alpha <= 1:
            raise InputError(f"Bad settings of safe_merge: alpha={self.alpha!r} must be at most 1.")
        if not -1 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold} is a cosine: give a number from -1 to 1.")
        if self.pseudo_unaligned:
            object.__setattr__(self, "needs", ("safety", "forget"))

    def build(self, context: BuildContext) -> Built:
        """Merges into the adapter in `context.parent`; saves it.

        Raises:
            InputError: there is no parent adapter or no unaligned model, they do not fit the base, the base refuses no
                safety prompt, the ranks do not fit `merge`, or a training diverges.
        """
        from ..finetuning.difference import alignment_difference
        from ..finetuning.projection import project_all
        from ..finetuning.pseudo_unaligned import refusal_adapter
        from ..models.devices import single
        from ..repairs.merging import check_same_modules, padded
        from ..repairs.parent import open_parent

        parent = open_parent(context, self.name)
        steps = self.pseudo_steps if self.pseudo_unaligned else None
        turned = bool(parent.config.get("fan_in_fan_out"))
        difference, noted = alignment_difference(context, self.name, steps, turned)
        found = project_all(
            parent.pairs, difference, "fro", 1, single(context.device),
            lambda count: context.tick("comparing", count, len(parent.pairs)),
        )  # fmt: skip
        (safety, learnt), prompts = refusal_adapter(context, self.safety_steps, self.max_new_tokens)
        check_same_modules(parent.factors, safety, "safety adapter")
        away = {each.module for each in found if each.cosine is not None and each.cosine < self.threshold}
        merged = {name: self._pair(tuned, safety[name], name in away) for name, tuned in parent.factors.items()}
        parent.of_scale_one(padded(merged)).save(context.output, context.base)
        details: dict[str, Any] = {
            "merged": len(away), "of": len(found), "safety_adapter": learnt,
            "matrices": [
                {"module": each.module, "cosine": each.cosine, "merged": each.module in away} for each in found
            ],
        }  # fmt: skip
        details |= {"pseudo_unaligned": noted} if noted else {}
        used = {row["prompt"] for row in context.data.get("forget", ())} if self.pseudo_unaligned else set()
        return Built(safety_examples=len(prompts | used), details=details)

    def _pair(self, tuned: "Factors", safety: "Factors", merges: bool) -> tuple[Any, Any]:
        """A and B of the sum, or of the update as it is; at scale 1."""
        from ..repairs.merging import concatenated, cross_terms

        if not merges:
            return concatenated([(1.0, tuned)])
        parts = [(self.alpha, tuned), (1 - self.alpha, safety)]
        if self.merge == "peft_linear":
            return cross_terms(parts)
        return concatenated([part for part in parts if part[0]])
