"""Full fine-tuning: every parameter is trained, and the checkpoint is a whole model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..method import BuildContext, Built, Stage

if TYPE_CHECKING:
    from ..config.training import TrainingConfig

__all__ = ["Full"]


@dataclass(frozen=True)
class Full:
    """Supervised fine-tuning of all parameters on the task, with no regard to safety.

    The run's fine-tuning settings hold for all that is None here.
    """

    name: ClassVar[str] = "full"
    stage: ClassVar[Stage] = "fine-tuning"
    summary: ClassVar[str] = "Fine-tuning of all parameters on the task; saves a whole model, no adapter."
    paper: ClassVar[str] = "arXiv 2310.03693"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("task_train",)

    model: str | None = None
    """Folder of a whole fine-tuned model to take as it is, instead of training one."""
    learning_rate: float = 2e-5
    """Qi et al.'s for 7B models; a LoRA's would be ten times too large for all parameters."""
    batch_size: int | None = None
    micro_batch_size: int | None = None
    epochs: float | None = None
    gradient_checkpointing: bool | None = None
    master_weights: bool = True
    """Trains fp32 weights (16 bytes per parameter with AdamW), with bfloat16 arithmetic where the model is bfloat16.
    False trains in the model's own type, where updates below half a unit in the last place are lost."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "micro_batch_size", "epochs"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}={value} must be positive.")

    def build(self, context: BuildContext) -> Built:
        """Trains on `task_train` with a response-only loss; saves model and tokenizer in the model's own type.

        Or takes over the model that is given, without a copy of its weights where the disk is the same.

        Raises:
            InputError: the model or the rows are unusable, or training diverges.
        """
        if self.model is not None:
            from ..models.checkpoint import take_full

            take_full(Path(self.model), context.output)
            return Built(details={"model": self.model})
        from ..finetuning.whole import train_whole
        from ..losses.encoding import encode_all
        from ..models.checkpoint import save_full
        from ..models.loading import load_base, load_tokenizer

        tokenizer = load_tokenizer(context.base, context.revision)
        rows = encode_all(tokenizer, context.data["task_train"], "task_train", context.max_length)
        model: Any = load_base(context.base, context.revision, context.dtype, context.device)
        config = self.training(context.finetune)
        losses = train_whole(model, tokenizer, rows, config, context.seed, context.tick, self.master_weights)
        save_full(model, tokenizer, context.output)
        return Built(
            details={
                "steps": len(losses),
                "first_loss": losses[0],
                "last_loss": losses[-1],
                "rows": len(rows),
                "parameters": sum(parameter.numel() for parameter in model.parameters()),
                "saved_dtype": str(model.dtype).removeprefix("torch."),
            }
        )

    def training(self, finetune: "TrainingConfig") -> "TrainingConfig":
        """The run's fine-tuning settings with those given here in their place."""
        names = ("learning_rate", "batch_size", "micro_batch_size", "epochs", "gradient_checkpointing")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(finetune, **given)
