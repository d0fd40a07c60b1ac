"""The base in vLLM, which becomes each of its checkpoints; what transformers makes of them proves that it does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ..config.model import RunConfig
from ..store.store import Store
from .loading import as_checkpoint, free_memory, load_base_of
from .models import ModelSource

if TYPE_CHECKING:
    from ..engines.stored import OnDone
    from ..engines.vllm import VLLMEngine

__all__ = ["VLLMTarget"]


class VLLMTarget:
    """The base in vLLM. What transformers makes of each checkpoint's probe is known before vLLM takes the memory."""

    def __init__(self, model: ModelSource, checkpoints: Sequence[Path | None], config: RunConfig) -> None:
        self._model, self._checkpoints, self._config = model, checkpoints, config
        self._wanted: dict[Path | None, list[float] | InputError] = {}
        self._engine: VLLMEngine | None = None

    @contextmanager
    def serving(
        self, checkpoint: Path | None, identity: dict[str, Any], store: Store, on_done: "OnDone"
    ) -> Iterator[Any]:
        """See `Target`."""
        wanted = self._wanted_of(checkpoint)
        engine = self._engine or self._start()
        try:
            with engine.serving(checkpoint, wanted, identity, store, on_done):
                yield engine
        except InputError:
            raise
        except BaseException:
            self.close()  # requests may be under way in it
            raise

    def close(self) -> None:
        """See `Target`."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _start(self) -> "VLLMEngine":
        from ...restore.models.loading import load_tokenizer
        from ..engines.vllm import VLLMEngine
        from ..engines.vllm_settings import dtype_of

        base = self._model.location
        dtype = dtype_of(base, self._config)
        self._engine = VLLMEngine(
            base, load_tokenizer(base), dtype, self._wanted_of(None), self._config.parallel
        )  # fmt: skip
        return self._engine

    def _wanted_of(self, checkpoint: Path | None) -> list[float]:
        if not self._wanted:
            self._wanted = _references(self._model, self._checkpoints, self._config)
        found = self._wanted[checkpoint]
        if isinstance(found, InputError):
            raise found
        return found


def _differ(one: Any, other: Any) -> bool:
    """Whether two tokenizers would make other prompts."""
    return bool(
        one.get_vocab() != other.get_vocab()
        or one.chat_template != other.chat_template
        or one.eos_token_id != other.eos_token_id
    )


def _references(
    model: ModelSource, checkpoints: Sequence[Path | None], config: RunConfig
) -> dict[Path | None, list[float] | InputError]:
    """What transformers makes of the probe, by each checkpoint and by the base, or why it cannot be loaded."""
    from ..engines.canary import probe_ids, reference

    base, tokenizer = load_base_of(model, config)
    ids = probe_ids(tokenizer)
    found: dict[Path | None, list[float] | InputError] = {}
    for checkpoint in dict.fromkeys([None, *checkpoints]):
        try:
            with as_checkpoint(base, tokenizer, checkpoint, model, config) as (loaded, own):
                if checkpoint and _differ(own, tokenizer):
                    raise InputError(
                        f"The checkpoint '{checkpoint}' has a tokenizer of its own, with other tokens or another chat "
                        "template than the base's: that is not offered with vLLM. Use engine: hf."
                    )
                found[checkpoint] = reference(loaded, ids)
        except InputError as error:
            found[checkpoint] = error
    del base, loaded
    free_memory()
    return found
