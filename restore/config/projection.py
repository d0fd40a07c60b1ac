"""How Safe LoRA chooses matrices and what it makes of them."""

from typing import Literal

__all__ = ["Select", "Variant"]

Variant = Literal["fro", "spectral", "topk", "drop"]
Select = Literal["threshold", "number"]
