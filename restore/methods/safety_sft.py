"""Control: a short supervised fine-tuning of the tuned adapter on the base model's refusals."""

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..method import BuildContext, Built, Grid, Stage
from ..unlearning.config import check_settings

if TYPE_CHECKING:
    from ..losses.encoding import Encoded

__all__ = ["SafetySft"]


@dataclass(frozen=True, kw_only=True)
class SafetySft:
    """Trains the tuned adapter on the refusals that `curvature` goes back to, for as many row-passes as that takes."""

    name: ClassVar[str] = "safety_sft"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Control: fine-tunes the adapter on the base's refusals; curvature's data and row-passes."
    paper: ClassVar[str] = "none: a control of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("forget", "retain_1", "retain_2")
    """With `retain: 0`, an instance needs ("forget",)."""
    grid: ClassVar[Grid] = (
        {},
        {"row_passes": 1150},
        {"row_passes": 575},
        {"row_passes": 4600},
        {"retain": 3.0},
        {"retain": 0.3},
    )

    row_passes: int = 2300
    """Rows forward and backward: what `curvature` takes by default (in the mean over worlds, see docs/results)."""
    retain: float = 1.0
    """Task rows for each refusal, drawn by the run's seed; 0 trains on refusals alone."""
    learning_rate: float | None = None
    """The fine-tuning's own where null."""
    batch_size: int = 16
    """Rows in an optimizer step."""
    forget_size: int = 50
    """Harmful prompts whose refusals are trained on, as `curvature`."""
    max_new_tokens: int = 64
    """Length of the base's refusals."""

    def __post_init__(self) -> None:
        check_settings(
            self, counts=("row_passes", "batch_size", "forget_size", "max_new_tokens"), not_negative=("retain",),
            positive=() if self.learning_rate is None else ("learning_rate",),
        )  # fmt: skip
        if not self.retain:
            object.__setattr__(self, "needs", ("forget",))

    def build(self, context: BuildContext) -> Built:
        """Trains the adapter in `context.parent` on, or an adapter on the whole model there; saves it.

        Raises:
            InputError: there is no parent, it or the rows are unusable, the base refuses no prompt, or
                training diverges.
        """
        if context.parent is None:
            raise InputError(
                "The method safety_sft trains a fine-tuned adapter on, and none was given. Run lora first."
            )
        from ..finetuning.counted import train_counted
        from ..models.checkpoint import load_start, save_start

        model, tokenizer = load_start(
            context.base, context.parent, context.lora, context.seed, context.revision, context.dtype, context.device
        )
        refusals, kept = self._rows(model, tokenizer, context)
        if context.finetune.gradient_checkpointing:
            model.enable_input_require_grads()
        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            context.tick("training on refusals", done, total)

        config = replace(
            context.finetune, batch_size=self.batch_size, learning_rate=self.learning_rate or
            context.finetune.learning_rate, micro_batch_size=min(self.batch_size, context.finetune.micro_batch_size),
        )  # fmt: skip
        passes = train_counted(model, tokenizer, [*refusals, *kept], config, self.row_passes, context.seed, progress)
        save_start(model, tokenizer, context.output, context.base, context.parent)
        details: dict[str, Any] = {
            "refusals": len(refusals), "retain_rows": len(kept), "steps": len(losses), "first_loss": losses[0],
            "last_loss": losses[-1], "row_passes": passes.rows,
        }  # fmt: skip
        prompts = {row["prompt"] for row in context.data["forget"][: self.forget_size]}
        return Built(safety_examples=len(prompts), details=details)

    def _rows(self, model: Any, tokenizer: Any, context: BuildContext) -> "tuple[list[Encoded], list[Encoded]]":
        """The base's refusals, and the task rows beside them."""
        from ..losses.encoding import encode_all
        from ..restoration.harmful import base_refusals

        settings = RestoreConfig(
            max_new_tokens=self.max_new_tokens, micro_batch_size=context.finetune.micro_batch_size,
            max_length=context.max_length,
        )  # fmt: skip
        refusals = base_refusals(model, tokenizer, context.data["forget"][: self.forget_size], settings, context.tick)
        if not self.retain:
            return refusals, []
        known = [*context.data["retain_1"], *context.data["retain_2"]]
        number = min(len(known), round(self.retain * len(refusals)))
        drawn = random.Random(f"{context.seed} safety_sft").sample(known, number)
        return refusals, encode_all(tokenizer, drawn, "retain", context.max_length) if drawn else []
