"""Where a model that may be spread over devices, or offloaded, takes its input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch

__all__ = ["Spread", "default_device", "input_device", "single"]


@dataclass(frozen=True)
class Spread:
    """How accelerate spreads the layers of a model over devices as it is loaded."""

    device_map: str
    """`auto`, `balanced`, `balanced_low_0` or `sequential`."""
    max_memory: Mapping[str, str] = field(default_factory=dict)
    """Device (a number, or `cpu`) -> the most that it may hold, such as 70GiB; what is not named is not bounded."""

    @property
    def settings(self) -> dict[str, Any]:
        """For `from_pretrained`."""
        limits = {int(name) if name.isdecimal() else name: most for name, most in self.max_memory.items()}
        return {"device_map": self.device_map, **({"max_memory": limits} if limits else {})}


def input_device(model: Any) -> torch.device:
    """The device of the input embeddings; where they are offloaded, that of the first parameter that is not.

    Args:
        model: a transformers or PEFT model, on one device or dispatched to several.
    """
    weights = chain(model.get_input_embeddings().parameters(), model.parameters())
    return next((weight.device for weight in weights if weight.device.type != "meta"), torch.device("cpu"))


def single(device: str | Spread | None) -> str:
    """The device for work that is no model's: where nothing else is said, CUDA if there is any."""
    return device if isinstance(device, str) else default_device()


def default_device() -> str:
    """CUDA where there is any, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
