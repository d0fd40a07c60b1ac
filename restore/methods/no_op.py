"""Control: the fine-tuned adapter once more."""

import shutil
from dataclasses import dataclass
from typing import ClassVar

from ...errors import InputError
from .base import BuildContext, Built, Stage

__all__ = ["NoOp"]

COPIED = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class NoOp:
    """Copies the fine-tuned adapter, byte for byte: its row must be that of lora."""

    name: ClassVar[str] = "no_op"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Control: a copy of the fine-tuned adapter; its row must equal lora's."
    paper: ClassVar[str] = "none: a control of this project"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ()

    def build(self, context: BuildContext) -> Built:
        """Copies the adapter in `context.parent`.

        Raises:
            InputError: there is no parent adapter.
        """
        if context.parent is None:
            raise InputError("The method no_op copies a fine-tuned adapter, and none was given. Run lora first.")
        found = [context.parent / name for name in COPIED if (context.parent / name).is_file()]
        if len(found) < 2:
            raise InputError(f"'{context.parent}' is no PEFT adapter. Give the folder that save_pretrained wrote.")
        for file in found:
            shutil.copy(file, context.output)
        return Built(details={"moved_norm": 0.0, "accepted_steps": 0, "gradient_evaluations": 0})
