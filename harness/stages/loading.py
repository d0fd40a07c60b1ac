"""The base model in transformers, and what its checkpoints make of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.model import RunConfig
from .models import ModelSource

if TYPE_CHECKING:
    from ...restore.models.devices import Spread

__all__ = ["as_checkpoint", "free_memory", "load_base_of", "placement"]


def placement(config: RunConfig) -> "str | Spread | None":
    """Where models are loaded to: the device of a config, or how they are spread over several."""
    from ...restore.models.devices import Spread

    parallel = config.parallel
    return Spread(parallel.device_map, parallel.max_memory) if parallel.device_map else config.device


def free_memory() -> None:
    """Gives back what nothing refers to any more, on the CUDA device too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_base_of(model: ModelSource, config: RunConfig) -> tuple[Any, Any]:
    """The base model, in eval mode on its device, and its tokenizer."""
    from ...restore.models.loading import load_base, load_tokenizer

    return load_base(model.location, None, config.dtype, placement(config)), load_tokenizer(model.location)


@contextmanager
def as_checkpoint(
    base: Any, tokenizer: Any, folder: Path | None, model: ModelSource, config: RunConfig
) -> Iterator[Any]:
    """The model that a checkpoint stands for, and its tokenizer.

    That is the base with its adapter, which is taken off again; or a model of its own, where the checkpoint is a whole
    one or its adapter holds weights that would take the place of the base's (embedding tables, biases).
    """
    from ...restore.models.checkpoint import kind_of
    from ...restore.models.fitting import fitted, rows_of
    from ...restore.models.loading import load_adapter, load_base, load_tokenizer, load_tuned, tokenizer_of
    from ...restore.models.tables import changes_base

    if folder is None:
        yield base, tokenizer
    elif kind_of(folder) == "full":
        yield load_base(str(folder), None, config.dtype, placement(config)), load_tokenizer(str(folder))
    elif changes_base(base, folder):
        yield load_tuned(model.location, folder, None, config.dtype, placement(config))
    else:
        own = fitted(tokenizer_of(model.location, folder), rows_of(base))
        adapted = load_adapter(base, folder)
        try:
            yield adapted, own
        finally:
            adapted.unload()
