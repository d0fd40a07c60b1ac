"""Llama Guard 2, 3 and 4: the judge of the headline, the harmful response rate."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

from ..errors import InputError
from ..registry import suggest
from ..results.records import Verdict
from ..vllm_setup import vllm_problem
from .base import Exchange
from .digests import text_digest
from .guard_answer import PARSE_VERSION, answer_tokens, parse_answer, unsafe_probability
from .guard_engines import MAX_NEW_TOKENS, GuardAnswer, GuardEngine, TransformersGuard, VLLMGuard
from .guard_model import VERSIONS, GuardFiles, find_guard

__all__ = ["LlamaGuardJudge"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_ENGINES = ("hf", "vllm")


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
        engine: str = "hf",
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: hub id (`meta-llama/Llama-Guard-3-8B`) or folder.
            revision: branch, tag or commit on the hub.
            version: "2", "3", "3-1b" or "4": whose categories these are; None tells it from name, config and template.
            batch_size: exchanges judged at once by transformers; vLLM chooses itself.
            device: torch device; None takes the GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; "auto" is that of the checkpoint.
            engine: what answers: "hf" (transformers) or "vllm".

        Raises:
            InputError: unknown version, dtype or engine, a batch size below 1, or vLLM cannot be had.
        """
        if version is not None and version not in VERSIONS:
            raise InputError(f"Unknown Llama Guard version '{version}'. {suggest(version, VERSIONS)}")
        if dtype not in _DTYPES:
            raise InputError(f"Unknown dtype '{dtype}' of llama_guard. {suggest(dtype, _DTYPES)}")
        if engine not in _ENGINES:
            raise InputError(f"Unknown engine '{engine}' of llama_guard. {suggest(engine, _ENGINES)}")
        if engine == "vllm" and (problem := vllm_problem(device)):
            raise InputError(f"llama_guard: {problem}.")
        if batch_size < 1:
            raise InputError(f"The batch_size of llama_guard is {batch_size}; it must be 1 or more.")
        self.model, self.revision, self.version = model, revision, version
        self.batch_size = batch_size if engine == "hf" else VLLMGuard.BATCH
        self.device, self.dtype, self.engine = device, dtype, engine
        self._files: GuardFiles | None = None
        self._engine: GuardEngine | None = None

    @property
    def files(self) -> GuardFiles:
        """Config, tokenizer, prompt and digest; loaded once, without the weights.

        Raises:
            InputError: the model is absent, gated or no Llama Guard; or multimodal, which vLLM is not used for.
        """
        if self._files is None:
            self._files = find_guard(self.model, self.revision, self.version)
            if self.engine == "vllm" and self._files.multimodal:
                self._files = None
                raise InputError(
                    f"The guard '{self.model}' is multimodal: that is not offered with vLLM. Use engine: hf."
                )
        return self._files

    @property
    def identity(self) -> str:
        """Model, version, digests of weights and template, dtype, version of the parsing, vLLM; loads no weights.

        A folder counts by its name and content, not by where it lies.
        """
        files = self.files
        model = Path(self.model).name if Path(self.model).is_dir() else self.model
        return (
            f"llama_guard:model={model}:revision={self.revision}:version={files.version}:weights={files.digest}"
            f":template={text_digest(files.prompt.template)}:dtype={self.dtype}:parse={PARSE_VERSION}"
        ) + (f":engine={VLLMGuard.name()}" if self.engine == "vllm" else "")

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        """Judges each exchange.

        Args:
            exchanges: what to judge.
            on_done: called after each batch with the number of exchanges finished so far.

        Raises:
            InputError: the model is absent, gated or no Llama Guard, or its template does not show an exchange.
        """
        prompts = {exchange: self.files.prompt.encode(exchange) for exchange in dict.fromkeys(exchanges)}
        window = self.files.window if self.engine == "hf" else min(self.files.window, VLLMGuard.WINDOW)
        room = window - MAX_NEW_TOKENS
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
        """Frees the model, and the memory that it was given."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _answer(self, prompts: list[list[int]]) -> list[Verdict]:
        """Greedy answers to a batch of prompts, each with its P(unsafe)."""
        if self._engine is None:
            vllm = self.engine == "vllm"
            self._engine = (
                VLLMGuard(self.files, self.dtype) if vllm else TransformersGuard(self.files, self.device, self.dtype)
            )
        tokenizer, ends = self.files.tokenizer, self.files.ends
        return [self._verdict(one) for one in self._engine.answer(prompts, answer_tokens(tokenizer), ends)]

    def _verdict(self, given: GuardAnswer) -> Verdict:
        """One answer; what follows the end of text is padding of the batch."""
        tokenizer = self.files.tokenizer
        answer = list(takewhile(lambda token: token not in self.files.ends, given.tokens))
        parsed = parse_answer(tokenizer.decode(answer, skip_special_tokens=True))
        return replace(parsed, score=unsafe_probability(given.scores, answer, tokenizer))
