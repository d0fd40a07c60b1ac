"""The model under test, in memory for as long as its checkpoints answer; loaded when the first of them needs it."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .config_model import RunConfig
from .engines.choice import EngineName
from .models import ModelSource
from .store import Store

if TYPE_CHECKING:
    from .engines.stored import OnDone

__all__ = ["Target", "as_checkpoint", "free_memory", "load_base_of", "target_for"]


class Target(Protocol):
    """One base model that becomes each of its checkpoints in turn."""

    def serving(
        self, checkpoint: Path | None, identity: dict[str, Any], store: Store, on_done: "OnDone"
    ) -> AbstractContextManager[Any]:
        """An engine that answers as the checkpoint (None: the base) would, inside the block.

        Raises:
            InputError: base or checkpoint cannot be loaded, or the engine would answer as another model.
        """
        ...

    def close(self) -> None:
        """Frees the memory."""
        ...


@contextmanager
def target_for(
    engine: EngineName,
    model: ModelSource,
    checkpoints: Sequence[Path | None],
    config: RunConfig,
    say: Callable[[str], None],
) -> Iterator[Target]:
    """The target of a run; its memory is free again after the block.

    Args:
        engine: which one answers.
        model: the base.
        checkpoints: those that will be asked for, None being the base.
        config: dtype, device and batch size.
        say: called with what a user should know.
    """
    from .vllm_target import VLLMTarget

    target: Target = _HF(model, config, say) if engine == "hf" else VLLMTarget(model, checkpoints, config)
    try:
        yield target
    finally:
        target.close()


class _HF:
    """The base in transformers, with the adapter put on it and taken off again."""

    def __init__(self, model: ModelSource, config: RunConfig, say: Callable[[str], None]) -> None:
        self._model, self._config, self._say = model, config, say
        self._loaded: list[Any] = []

    @contextmanager
    def serving(
        self, checkpoint: Path | None, identity: dict[str, Any], store: Store, on_done: "OnDone"
    ) -> Iterator[Any]:
        from .engines.hf import HFEngine

        if not self._loaded:
            self._loaded += load_base_of(self._model, self._config)
        base, tokenizer = self._loaded
        with as_checkpoint(base, checkpoint, self._config) as loaded:
            yield HFEngine(loaded, tokenizer, identity, store, self._config.batch_size, on_done, self._say)

    def close(self) -> None:
        if self._loaded:
            self._loaded.clear()
            free_memory()


def free_memory() -> None:
    """Gives back what nothing refers to any more, on the CUDA device too."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_base_of(model: ModelSource, config: RunConfig) -> tuple[Any, Any]:
    """The base model, in eval mode on its device, and its tokenizer."""
    from ..restore.loading import load_base, load_tokenizer

    return load_base(model.location, None, config.dtype, config.device), load_tokenizer(model.location)


@contextmanager
def as_checkpoint(base: Any, folder: Path | None, config: RunConfig) -> Iterator[Any]:
    """The model that a checkpoint stands for: the base with its adapter, which is taken off again, or a whole model."""
    from ..restore.checkpoint import kind_of
    from ..restore.loading import load_adapter, load_base

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
