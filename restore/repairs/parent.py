"""The fine-tuned adapter that a closed-form repair starts from."""

from ...errors import InputError
from ..method import BuildContext
from ..models.lora_files import LoraFiles

__all__ = ["open_parent"]


def open_parent(context: BuildContext, method: str) -> LoraFiles:
    """Reads `context.parent`.

    Raises:
        InputError: there is none, it is no plain LoRA of linear modules, or it changes more than these.
    """
    if context.parent is None:
        raise InputError(f"The method {method} repairs a fine-tuned adapter, and none was given. Run lora first.")
    found = LoraFiles.read(context.parent)
    if found.others:
        raise InputError(
            f"The adapter '{context.parent}' changes more than linear modules by LoRA, such as '{found.others[0]}', "
            f"which {method} would leave unrepaired. Train it without modules_to_save, biases and embeddings."
        )
    return found
