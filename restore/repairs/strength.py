"""A repair of one strength, made as strong as the bound on the retain loss allows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as Folder
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from ..method import BuildContext, Built
from ..models.lora_files import LoraFiles
from ..models.parameters import FlatParameters
from ..unlearning.config import ControlConfig
from ..unlearning.post_hoc import control
from ..unlearning.walk import Path

__all__ = ["strongest"]


def strongest(
    context: BuildContext,
    method: str,
    settings: ControlConfig,
    repaired: Callable[[float], LoraFiles],
    first: float,
    most: float,
) -> Built:
    """Searches for the largest strength within the bound, as the controls do; saves that adapter with its trace.

    Args:
        context: model, data and output folder; of the data, `retain_check`.
        method: its name, for errors.
        settings: the bound and the search.
        repaired: strength -> the adapter, of one shape for all; at 0 the fine-tuned one's function.
        first: the strength tried first; doubled while the bound holds.
        most: the largest.

    Raises:
        InputError: an adapter or the rows are unusable.
    """

    def path(parameters: FlatParameters) -> Path:
        names = [name.removesuffix(".default.weight") + ".weight" for name in parameters.names]

        def at(strength: float) -> Tensor:
            tensors = repaired(strength).tensors
            return torch.cat([tensors[name].flatten().float() for name in names]).to(parameters.device)

        return Path(at, min(first, most), most)

    with TemporaryDirectory() as scratch:
        repaired(0.0).save(Folder(scratch), context.base)
        return control(replace(context, parent=Folder(scratch)), method, settings, path)
