"""Plain LoRA fine-tuning: the model whose safety the other methods defend or restore."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..method import BuildContext, Built, Stage

__all__ = ["Lora"]


@dataclass(frozen=True)
class Lora:
    """Supervised fine-tuning of a fresh LoRA adapter on the task, with no regard to safety."""

    name: ClassVar[str] = "lora"
    stage: ClassVar[Stage] = "fine-tuning"
    summary: ClassVar[str] = "Standard LoRA fine-tuning on the task; no safety measure."
    paper: ClassVar[str] = "arXiv 2106.09685"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("task_train",)

    adapter: str | None = None
    """Folder of a trained adapter to take as it is, instead of training one."""

    def build(self, context: BuildContext) -> Built:
        """Trains on `task_train` with a response-only loss and saves the adapter; or copies the one that is given.

        Raises:
            InputError: the model, the rows or the adapter's settings are unusable, or training diverges.
        """
        if self.adapter is not None:
            from ..models.adapter_files import copy_adapter

            copy_adapter(Path(self.adapter), context.output)
            return Built(details={"adapter": self.adapter})
        from ..finetuning.training import train
        from ..losses.encoding import encode_all
        from ..models.loading import load_base, load_tokenizer, new_adapter, save_adapter

        tokenizer = load_tokenizer(context.base, context.revision)
        rows = encode_all(tokenizer, context.data["task_train"], "task_train", context.max_length)
        base = load_base(context.base, context.revision, context.dtype, context.device)
        model = new_adapter(base, context.lora, context.seed, context.revision)
        if context.finetune.gradient_checkpointing:
            model.enable_input_require_grads()
        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            context.tick("training", done, total)

        train(model, tokenizer, rows, context.finetune, context.seed, progress)
        save_adapter(model, context.output, context.base)
        return Built(
            details={"steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1], "rows": len(rows)}
        )
