"""The model under test, in memory for as long as its checkpoints answer; loaded when the first of them needs it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..config.model import RunConfig
from ..engines.choice import EngineName
from ..store.store import Store
from .loading import as_checkpoint, free_memory, load_base_of
from .models import ModelSource

if TYPE_CHECKING:
    from ..engines.stored import OnDone

__all__ = ["Target", "target_for"]


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
        from ..engines.hf import HFEngine

        if not self._loaded:
            self._loaded += load_base_of(self._model, self._config)
        base, tokenizer = self._loaded
        with as_checkpoint(base, tokenizer, checkpoint, self._model, self._config) as (loaded, own):
            yield HFEngine(loaded, own, identity, store, self._config.batch_size, on_done, self._say)

    def close(self) -> None:
        if self._loaded:
            self._loaded.clear()
            free_memory()
