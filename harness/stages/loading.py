"""The base model in transformers, and what its checkpoints make of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..config.model import RunConfig
from .models import ModelSource

__all__ = ["as_checkpoint", "free_memory", "load_base_of"]


def free_memory() -> None:
    """Gives back what nothing refers to any more, on the CUDA device too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_base_of(model: ModelSource, config: RunConfig) -> tuple[Any, Any]:
    """The base model, in eval mode on its device, and its tokenizer."""
    from ...restore.models.loading import load_base, load_tokenizer

    return load_base(model.location, None, config.dtype, config.device), load_tokenizer(model.location)


@contextmanager
def as_checkpoint(base: Any, folder: Path | None, config: RunConfig) -> Iterator[Any]:
    """The model that a checkpoint stands for: the base with its adapter, which is taken off again, or a whole model."""
    from ...restore.models.checkpoint import kind_of
    from ...restore.models.loading import load_adapter, load_base

    if folder is None:
        yield base
    elif kind_of(folder) == "full":
        yield load_base(str(folder), None, config.dtype, config.device)
    else:
        adapted = load_adapter(base, folder)
        try:
            yield adapted
        finally:
            adapted.unload()
