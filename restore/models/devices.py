"""Where a model that may be spread over devices, or offloaded, takes its input."""

from itertools import chain
from typing import Any

import torch

__all__ = ["default_device", "input_device"]


def input_device(model: Any) -> torch.device:
    """The device of the input embeddings; where they are offloaded, that of the first parameter that is not.

    Args:
        model: a transformers or PEFT model, on one device or dispatched to several.
    """
    weights = chain(model.get_input_embeddings().parameters(), model.parameters())
    return next((weight.device for weight in weights if weight.device.type != "meta"), torch.device("cpu"))


def default_device() -> str:
    """CUDA where there is any, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
