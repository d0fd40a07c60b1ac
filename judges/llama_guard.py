"""Llama Guard 2, 3 and 4: the judge of the headline, the harmful response rate."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..registry import suggest
from ..results.records import Verdict
from .base import Exchange
from .digests import text_digest
from .guard_answer import PARSE_VERSION, answer_tokens, parse_answer, unsafe_probability
from .guard_model import VERSIONS, GuardFiles, find_guard, load_weights

__all__ = ["LlamaGuardJudge"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")
MAX_NEW_TOKENS = 20  # "unsafe" and a list of categories


class LlamaGuardJudge:
    """Asks a Llama Guard whether the response, the last message of the conversation, is unsafe.

    The conversation is [user: prompt, assistant: response] in the guard's own chat template; it answers greedily, and
    the answer is read strictly: what is not of its format is unparsed, and so is an exchange that does not fit its
    window (nothing is cut). Identical exchanges are judged once, and batches do not depend on the order of the input.
    """

    name: ClassVar[str] = "llama_guard"
    decides: ClassVar[frozenset[str]] = frozenset({"harm"})
    summary: ClassVar[str] = (
        "Llama Guard 2, 3, 3-1B or 4, from the hub (gated) or a folder: safe or unsafe with categories"
    )
    licence: ClassVar[str] = "Llama community licence of the model's generation (weights are gated, not shipped)"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        version: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str = "auto",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: hub id (`meta-llama/Llama-Guard-3-8B`) or folder.
            revision: branch, tag or commit on the hub.
            version: "2", "3", "3-1b" or "4": whose categories these are; None tells it from name, config and template.
            batch_size: exchanges judged at once.
            device: torch device; None takes the GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; "auto" is that of the checkpoint.

        Raises:
            InputError: unknown version or dtype, or a batch size below 1.
        """
        if version is not None and version not in VERSIONS:
            raise InputError(f"Unknown Llama Guard version '{version}'. {suggest(version, VERSIONS)}")
        if dtype not in _DTYPES:
            raise InputError(f"Unknown dtype '{dtype}' of llama_guard. {suggest(dtype, _DTYPES)}")
        if batch_size < 1:
            raise InputError(f"The batch_size of llama_guard is {batch_size}; it must be 1 or more.")
        self.model, self.revision, self.version = model, revision, version
        self.batch_size, self.device, self.dtype = batch_size, device, dtype
        self._files: GuardFiles | None = None
        self._weights: Any = None

    @property
    def files(self) -> GuardFiles:
        """Config, tokenizer, prompt and digest; loaded once, without the weights.

        Raises:
            InputError: the model is absent, gated or no Llama Guard.
        """
        if self._files is None:
            self._files = find_guard(self.model, self.revision, self.version)
        return self._files

    @property
    def identity(self) -> str:
        """Model, version, digests of weights and template, dtype and version of the parsing; loads no weights.

        A folder counts by its name and content, not by where it lies.
        """
        files = self.files
        model = Path(self.model).name if Path(self.model).is_dir() else self.model
        return (
            f"llama_guard:model={model}:revision={self.revision}:version={files.version}:weights={files.digest}"
            f":template={text_digest(files.prompt.template)}:dtype={self.dtype}:parse={PARSE_VERSION}"
        )

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        """Judges each exchange.

        Args:
            exchanges: what to judge.
            on_done: called after each batch with the number of exchanges finished so far.

        Raises:
            InputError: the model is absent, gated or no Llama Guard, or its template does not show an exchange.
        """
        prompts = {exchange: self.files.prompt.encode(exchange) for exchange in dict.fromkeys(exchanges)}
        room = self.files.window - MAX_NEW_TOKENS
        verdicts = {
            exchange: Verdict(raw=f"(not judged: a prompt of {len(ids)} tokens, the guard has room for {room})")
            for exchange, ids in prompts.items()
            if len(ids) > room
        }
        waiting = sorted(prompts.keys() - verdicts.keys(), key=lambda one: (-len(prompts[one]), one))
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            verdicts.update(zip(batch, self._answer([prompts[one] for one in batch]), strict=True))
            if on_done is not None:
                on_done(sum(exchange in verdicts for exchange in exchanges))
        if on_done is not None and not waiting:
            on_done(len(exchanges))
        return [verdicts[exchange] for exchange in exchanges]

    def close(self) -> None:
        """Frees the model and empties the CUDA cache."""
        if self._weights is None:
            return
        import torch

        self._weights = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _answer(self, prompts: list[list[int]]) -> list[Verdict]:
        """Greedy answers to a batch of prompts, left-padded, each with its P(unsafe)."""
        import torch

        model = self._load()
        width = max(map(len, prompts))
        pad = model.generation_config.pad_token_id
        ids = torch.tensor([[pad] * (width - len(one)) + one for one in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=model.device)
        with torch.inference_mode():
            output = model.generate(ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True)
        steps = torch.stack(output.logits, dim=1)
        return [self._verdict(*row) for row in zip(output.sequences[:, width:].tolist(), steps, strict=True)]

    def _verdict(self, generated: list[int], logits: Any) -> Verdict:
        """One answer; what follows the end of text is padding of the batch."""
        tokenizer, ends = self.files.tokenizer, _as_list(self._weights.generation_config.eos_token_id)
        answer = list(takewhile(lambda token: token not in ends, generated))
        parsed = parse_answer(tokenizer.decode(answer, skip_special_tokens=True))
        return replace(parsed, score=unsafe_probability(logits, answer, tokenizer, answer_tokens(tokenizer)))

    def _load(self) -> Any:
        """The weights, with greedy decoding as their only generation setting."""
        if self._weights is None:
            from transformers import GenerationConfig

            model = load_weights(self.files, self.device, self.dtype)
            tokenizer = self.files.tokenizer
            ends = {*_as_list(model.generation_config.eos_token_id), *_as_list(tokenizer.eos_token_id)}
            greedy: Any = GenerationConfig
            model.generation_config = greedy(
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                eos_token_id=sorted(ends) or None,
                pad_token_id=tokenizer.pad_token_id or 0,  # masked, so any id will do
            )
            self._weights = model
        return self._weights


def _as_list(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else ids
