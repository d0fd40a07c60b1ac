"""The transformers engine: lm-eval's HFLM on a loaded model, with every answer kept in the store."""

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...restore.models.chat import ends_of
from ...restore.models.fitting import rows_of
from ...restore.models.thinking import Thinking, decoded
from ...tasks.perturbation import Perturbation
from ..store.digests import code_digest
from ..store.store import Store
from .greedy import ends_of_greedy, greedy
from .kv_cache import growing_cache
from .perturbation import Perturber
from .prompt_checks import check_chat_template
from .stored import OnDone, Parts, StoredAnswers

__all__ = ["HFEngine", "StoredHFLM"]

ENCODED = 4096
"""Texts whose tokens an engine remembers."""


def _code() -> str:
    return code_digest("harness/engines", "restore/models")


class StoredHFLM(StoredAnswers, HFLM):  # type: ignore[misc]  # lm-eval is untyped
    """HFLM behind the store, which moves its weights where requests ask for it; made as HFLM is."""

    @cached_property
    def _perturber(self) -> Perturber:
        return Perturber(self.model)

    def move(self, to: Perturbation | None) -> None:
        """See `StoredAnswers`."""
        self._perturber.move(to)

    def tok_decode(self, tokens: Any, skip_special_tokens: bool = True) -> str:
        """lm-eval's own, but the marks around thinking stay where they are special tokens."""
        if skip_special_tokens and self._thinks is not None:
            return decoded(self.tokenizer, tokens, self._thinks)
        return str(super().tok_decode(tokens, skip_special_tokens=skip_special_tokens))

    @cached_property
    def _thinks(self) -> Thinking | None:
        return self.thinking

    def tok_encode(self, string: Any, *given: Any, **settings: Any) -> list[int]:
        """lm-eval's own, which asks for the tokens of each request several times."""
        if given or settings or not isinstance(string, str):
            return list(super().tok_encode(string, *given, **settings))
        return list(self._encoded(string))

    @cached_property
    def _encoded(self) -> Callable[[str], list[int]]:
        return lru_cache(ENCODED)(super().tok_encode)

    @property
    def generator(self) -> str:
        """See `StoredAnswers`."""
        return str(self.device.type)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **settings: Any) -> Any:
        """lm-eval's own, with keys and values in buffers that grow; where that makes the same tokens, `greedy`."""
        ends = ends_of_greedy(self.model, settings) if self.mixed_precision_dtype is None else []
        if self.tokenizer.eos_token_id in ends and stop == [self.tokenizer.eos_token]:
            mask, pad = settings["attention_mask"], self.tokenizer.pad_token_id
            return greedy(self.model, context, mask, max_length, ends, pad)
        cache = {} if "cache_implementation" in settings else growing_cache(self.model)
        return super()._model_generate(context, max_length, stop, **cache, **settings)


class HFEngine(StoredHFLM):
    """The engine of a run.

    Args:
        model: a causal LM, with or without an active PEFT adapter, on its device and in eval mode.
        tokenizer: its tokenizer; it must have a chat template.
        identity: what distinguishes this model from every other: digests of weights and adapter, dtype.
        store: where answers are kept.
        batch_size: requests per forward pass; fewer where they do not fit into the device's memory.
        on_done: called with (requests answered, requests so far), from the store or by the model.
        say: called when the batch had to be made smaller.

    Raises:
        InputError: the tokenizer has no chat template, or one that opens no answer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        identity: Parts,
        store: Store,
        batch_size: int,
        on_done: OnDone = lambda done, total: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        check_chat_template(tokenizer)
        model.generation_config.eos_token_id = ends = ends_of(model, tokenizer)
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.table = rows_of(model)
        self.answer_from(store, {**identity, "engine": "hf", "ends": ends, "code": _code()}, on_done, say)
