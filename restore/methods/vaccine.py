"""Vaccine: fine-tuning, or aligning before it, under the worst perturbation of the attention outputs."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ...errors import InputError
from ..method import BuildContext, Built, Rows, Stage

if TYPE_CHECKING:
    from transformers import Trainer

    from ..config.training import TrainingConfig
    from ..losses.encoding import Encoded

__all__ = ["Vaccine"]

ALIGNMENT_SEED = 1000
"""Added to the seed for the alignment's adapter, so that the two adapters do not start from the same numbers."""


@dataclass(frozen=True)
class Vaccine:
    """Two passes per micro-batch: one finds the perturbation of length rho that raises the loss most, one learns.

    Its stage is "fine-tuning" in both modes, since a class has one stage and both end with fine-tuning on the task.
    """

    name: ClassVar[str] = "vaccine"
    stage: ClassVar[Stage] = "fine-tuning"
    summary: ClassVar[str] = "LoRA trained under the worst perturbation of the attention outputs (with safety: aligns)."
    paper: ClassVar[str] = "arXiv 2402.01109"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("task_train",)
    """What `finetune` needs; an instance that aligns needs `safety` too."""

    rho: float = 2.0
    """Joint L2 norm of the perturbation: over all layers, rows of a micro-batch, tokens and hidden units."""
    mode: Literal["finetune", "align_then_finetune"] = "finetune"
    """`finetune`: perturbs the task's fine-tuning. `align_then_finetune`, the paper's: perturbs an alignment on
    the safety rows, then fine-tunes a second adapter plainly."""
    alignment_learning_rate: float = 1e-3
    """This and what follows is for `align_then_finetune` and the paper's."""
    alignment_batch_size: int = 5
    """Rows per optimizer step and per perturbation."""
    alignment_epochs: float = 50.0
    alignment_weight_decay: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rho) and self.rho >= 0):
            raise InputError(f"rho={self.rho} must be a finite number that is not negative; the paper's is 2.")
        if self.mode not in ("finetune", "align_then_finetune"):
            raise InputError(f"mode='{self.mode}' must be finetune or align_then_finetune.")
        if self.alignment_batch_size < 1 or self.alignment_learning_rate <= 0 or self.alignment_epochs <= 0:
            raise InputError("alignment_batch_size, alignment_learning_rate and alignment_epochs must be positive.")
        if self.alignment_weight_decay < 0:
            raise InputError(f"alignment_weight_decay={self.alignment_weight_decay} must not be negative.")
        if self.mode == "align_then_finetune":
            object.__setattr__(self, "needs", ("task_train", "safety"))

    def build(self, context: BuildContext) -> Built:
        """Trains and saves the adapter; of two adapters, their exact sum.

        Raises:
            InputError: the model, the rows or the adapter's settings are unusable, the model has no attention module
                of a known name, the safety rows hold no refusals, or training diverges.
        """
        from ..finetuning.vaccine import attention_modules, vaccine_trainer
        from ..losses.encoding import encode_all
        from ..models.loading import load_base, load_tokenizer, new_adapter, save_adapter

        aligns = self.mode == "align_then_finetune"
        tokenizer = load_tokenizer(context.base, context.revision)
        task = encode_all(tokenizer, context.data["task_train"], "task_train", context.max_length)
        refusals = _refusals(context.data["safety"]) if aligns else []
        safety = encode_all(tokenizer, refusals, "safety", context.max_length) if aligns else []
        base = load_base(context.base, context.revision, context.dtype, context.device)
        layers = len(attention_modules(base))
        model = new_adapter(base, context.lora, context.seed + aligns * ALIGNMENT_SEED, context.revision)
        if context.finetune.gradient_checkpointing:
            model.enable_input_require_grads()
        run = _Run(context, model, tokenizer)
        trainer = vaccine_trainer(self.rho)
        details: dict[str, Any] = {"perturbed_layers": layers, "rows": len(task)}
        if not aligns:
            details |= run.train("training", task, context.finetune, trainer)
            save_adapter(model, context.output, context.base)
            return Built(details=details)
        from ..finetuning.double_lora import save_sum, stack_adapter

        details["alignment"] = run.train("aligning", safety, self._alignment(context.finetune), trainer)
        stack_adapter(model, context.seed)
        details |= run.train("training", task, context.finetune)
        save_sum(model, context.output, context.base)
        return Built(safety_examples=len({row["prompt"] for row in refusals}), details=details)

    def _alignment(self, finetune: "TrainingConfig") -> "TrainingConfig":
        """The alignment's optimizer settings; precision, checkpointing and clipping are those of fine-tuning."""
        return replace(
            finetune,
            learning_rate=self.alignment_learning_rate,
            batch_size=self.alignment_batch_size,
            micro_batch_size=self.alignment_batch_size,
            epochs=self.alignment_epochs,
            max_steps=None,
            weight_decay=self.alignment_weight_decay,
            warmup_ratio=0.1,
            schedule="cosine",
        )


@dataclass(frozen=True)
class _Run:
    """What the two stages of training share."""

    context: BuildContext
    model: Any
    tokenizer: Any

    def train(
        self, what: str, rows: "list[Encoded]", config: "TrainingConfig", trainer: "type[Trainer] | None" = None
    ) -> dict[str, Any]:
        """Trains what is trainable; returns the number of steps and the first and the last loss."""
        from transformers import Trainer

        from ..finetuning.training import train

        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            self.context.tick(what, done, total)

        train(self.model, self.tokenizer, rows, config, self.context.seed, progress, trainer or Trainer)
        return {"steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1]}


def _refusals(rows: Rows) -> Rows:
    lacking = sum("response" not in row for row in rows)
    if lacking:
        raise InputError(
            f"vaccine with mode=align_then_finetune learns refusals, but {lacking} of the {len(rows)} safety rows have "
            "no 'response'. Give data.safety a file with the columns prompt (a harmful request) and "
            "response (its refusal), or use mode=finetune, which needs no safety rows."
        )
    return rows
