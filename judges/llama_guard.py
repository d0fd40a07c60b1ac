"""Llama Guard 1 to 4: the judge of the headline, the harmful response rate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ..errors import InputError
from ..registry import suggest
from ..results.records import Verdict
from .answer_words import Reading
from .guard_answer import PARSE_VERSION, answer_tokens, parse_answer, unsafe_probability
from .guard_engines import MAX_NEW_TOKENS
from .guard_model import VERSIONS, GuardFiles, find_llama_guard
from .model_judge import ModelJudge

__all__ = ["LlamaGuardJudge"]


class LlamaGuardJudge(ModelJudge):
    """Asks a Llama Guard whether the response, the last message of the conversation, is unsafe.

    The conversation is [user: prompt, assistant: response] in the guard's own chat template. Nothing is cut.
    """

    name: ClassVar[str] = "llama_guard"
    decides: ClassVar[frozenset[str]] = frozenset({"harm"})
    summary: ClassVar[str] = (
        "Llama Guard 1, 2, 3, 3-1B or 4, from the hub (gated) or a folder: safe or unsafe with categories"
    )
    licence: ClassVar[str] = "Llama community licence of the model's generation (weights are gated, not shipped)"
    LENGTH: ClassVar[int] = MAX_NEW_TOKENS
    PARSE: ClassVar[int] = PARSE_VERSION

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
            version: "1", "2", "3", "3-1b" or "4": whose categories these are; None tells it from name and template.
            batch_size: exchanges judged at once by transformers; vLLM chooses itself.
            device: torch device; None takes the GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; "auto" is that of the checkpoint.
            engine: what answers: "hf" (transformers) or "vllm".

        Raises:
            InputError: unknown version, dtype or engine, a batch size below 1, or vLLM cannot be had.
        """
        if version is not None and version not in VERSIONS:
            raise InputError(f"Unknown Llama Guard version '{version}'. {suggest(version, VERSIONS)}")
        super().__init__(model, revision, batch_size, device, dtype, engine)
        self.version = version

    def _find(self) -> GuardFiles:
        return find_llama_guard(self.model, self.revision, self.version)

    def _settings(self) -> dict[str, object]:
        return {"version": self.files.version}

    def _words(self) -> tuple[int, ...]:
        return answer_tokens(self.files.tokenizer)

    def _verdict(self, readings: Sequence[Reading]) -> Verdict:
        (given,) = readings
        steps = [(step[0], step[1]) for step in given.scores]
        return replace(parse_answer(given.text), score=unsafe_probability(steps, given.tokens, self.files.tokenizer))
