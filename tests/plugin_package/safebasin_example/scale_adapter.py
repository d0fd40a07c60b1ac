"""A method in one file: multiplies the update of a fine-tuned adapter by a factor."""

import math
import shutil
from dataclasses import dataclass
from typing import ClassVar

from safebasin.errors import InputError
from safebasin.restore.method import BuildContext, Built, Stage

__all__ = ["ScaleAdapter"]


@dataclass(frozen=True)
class ScaleAdapter:
    """W_base + s B A becomes W_base + factor s B A: at 0 the base model, at 1 the fine-tuned one."""

    name: ClassVar[str] = "scale_adapter"
    stage: ClassVar[Stage] = "post-hoc"
    summary: ClassVar[str] = "Multiplies the adapter's update by a factor."
    paper: ClassVar[str] = "none: an example"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ()

    factor: float = 0.5

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor):
            raise InputError(f"factor={self.factor} must be finite.")

    def build(self, context: BuildContext) -> Built:
        """Scales the B matrices of the adapter in `context.parent`.

        Raises:
            InputError: there is no parent adapter.
        """
        if context.parent is None:
            raise InputError(
                "The method scale_adapter scales a fine-tuned adapter, and none was given. Run lora first."
            )
        from safetensors.torch import load_file, save_file

        tensors = load_file(context.parent / "adapter_model.safetensors")
        scaled = {name: tensor * self.factor if "lora_B" in name else tensor for name, tensor in tensors.items()}
        save_file(scaled, context.output / "adapter_model.safetensors", metadata={"format": "pt"})
        shutil.copy(context.parent / "adapter_config.json", context.output)
        return Built(details={"factor": self.factor, "scaled": sum("lora_B" in name for name in tensors)})
