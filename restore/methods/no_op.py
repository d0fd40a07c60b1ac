"""Control: the fine-tuned adapter once more."""

from dataclasses import dataclass
from typing import ClassVar

from ...errors import InputError
from ..method import BuildContext, Built, Stage

__all__ = ["NoOp"]


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
        from ..models.adapter_files import copy_adapter

        copy_adapter(context.parent, context.output)
        return Built(details={"moved_norm": 0.0, "accepted_steps": 0, "gradient_evaluations": 0})
