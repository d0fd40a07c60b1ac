"""Two LoRA adapters trained one after the other, and their exact sum as one ordinary adapter."""

import copy
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import set_seed

__all__ = ["save_sum", "stack_adapter"]

FIRST, SECOND, SUM = "default", "second", "sum"


def stack_adapter(model: Any, seed: int) -> None:
    """Freezes the adapter of a PEFT model and puts a fresh one of the same shape on top, the only trainable part.

    The function is unchanged. It is W + s·B₁A₁ + s·B₂A₂ as if the first adapter had been merged into the base,
    without the rounding that merging into 16-bit weights costs.

    Args:
        model: a PEFT model with its one adapter under PEFT's default name.
        seed: decides the random half of the fresh adapter.
    """
    set_seed(seed)
    model.add_adapter(SECOND, copy.deepcopy(model.peft_config[FIRST]))
    model.base_model.set_adapter([FIRST, SECOND])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(f".{SECOND}." in name)


def save_sum(model: Any, folder: str | Path, base: str) -> None:
    """Saves both adapters as one standard PEFT adapter of rank 2r: A = s·[A₁; A₂], B = [B₁ B₂], scale 1.

    Args:
        model: a PEFT model that `stack_adapter` was applied to.
        folder: an existing folder.
        base: noted as the base model's name.
    """
    model.base_model.add_weighted_adapter([FIRST, SECOND], [1.0, 1.0], SUM, combination_type="cat")
    model.peft_config[SUM].base_model_name_or_path = base
    with TemporaryDirectory(dir=folder) as scratch:
        model.save_pretrained(scratch, selected_adapters=[SUM])
        for file in (Path(scratch) / SUM).iterdir():  # PEFT gives an adapter with a name a folder of its own
            shutil.move(file, Path(folder) / file.name)
