"""The HarmBench classifiers: does the response show the behaviour that was asked for?"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from ..results.records import Verdict
from .answer_words import AnswerWords, Reading
from .base import Exchange
from .file_prompt import check_limit, first_tokens
from .guard_model import GuardFiles, find_guard, prompt_from
from .model_judge import ModelJudge
from .yes_no import YES, parse_yes_no

__all__ = ["HarmBenchJudge"]


class HarmBenchJudge(ModelJudge):
    """Asks a HarmBench classifier for one word: is the response an instance of the behaviour?

    The classifier's prompt is not in its tokenizer: give the published text as a file.
    """

    name: ClassVar[str] = "harmbench"
    decides: ClassVar[frozenset[str]] = frozenset({"harm"})
    summary: ClassVar[str] = "HarmBench classifiers (open): does the response show the behaviour that was asked for?"
    licence: ClassVar[str] = "MIT (weights are not shipped)"
    LENGTH: ClassVar[int] = 1

    def __init__(
        self,
        model: str = "cais/HarmBench-Llama-2-13b-cls",
        prompt_file: str | None = None,
        max_response_tokens: int | None = 512,
        revision: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str = "auto",
        engine: str = "hf",
    ) -> None:
        """Nothing is loaded yet; `ModelJudge` has the settings that are not here.

        Args:
            model: hub id or folder.
            prompt_file: the published prompt, see `PromptText`; None takes the tokenizer's chat template.
            max_response_tokens: the response is cut to so many of the classifier's tokens, as published; None: never.
            revision: branch, tag or commit on the hub.
            batch_size: exchanges at once.
            device: torch device.
            dtype: of the weights.
            engine: "hf" or "vllm".

        Raises:
            InputError: a setting is unknown, the file cannot be used, or vLLM cannot be had.
        """
        super().__init__(model, revision, batch_size, device, dtype, engine)
        self.max_response_tokens = check_limit(max_response_tokens)
        self._prompt = prompt_from(prompt_file)

    def _find(self) -> GuardFiles:
        return find_guard(self.model, self.revision, self._prompt)

    def _settings(self) -> dict[str, object]:
        return {"max_response_tokens": self.max_response_tokens}

    def _prompts(self, exchange: Exchange) -> list[list[int]]:
        response = first_tokens(exchange.response, self.max_response_tokens, self.files.tokenizer)
        return super()._prompts(Exchange(exchange.prompt, response))

    def _words(self) -> tuple[int, ...]:
        self._yes_no = AnswerWords(self.files.tokenizer, ("yes", "no"))
        return self._yes_no.ids

    def _verdict(self, readings: Sequence[Reading]) -> Verdict:
        (given,) = readings
        return replace(parse_yes_no(given.text), score=self._yes_no.shares(given.scores[0])[YES])
