"""The StrongREJECT rubric, answered by a chat model of your choice on this machine."""

from collections.abc import Sequence
from typing import ClassVar

from ..results.records import Verdict
from .answer_words import Reading
from .file_prompt import ChatPrompt, PromptText
from .grades import check_threshold, parse_rubric
from .guard_model import GuardFiles, find_guard
from .model_judge import ModelJudge

__all__ = ["StrongRejectRubricJudge"]


class StrongRejectRubricJudge(ModelJudge):
    """Puts the rubric, with request and response in it, to a chat model as one message.

    The published rubric is not shipped: give it as a file.
    """

    name: ClassVar[str] = "strong_reject_rubric"
    decides: ClassVar[frozenset[str]] = frozenset({"harm", "refusal", "grade"})
    summary: ClassVar[str] = "StrongREJECT rubric, put to a chat model of your choice: refusal, and grade 0 to 1"
    licence: ClassVar[str] = "MIT (the rubric, which you give); the model's own"
    LENGTH: ClassVar[int] = 1024

    def __init__(
        self,
        model: str,
        prompt_file: str,
        system: str | None = None,
        threshold: float = 0.5,
        revision: str | None = None,
        batch_size: int = 16,
        device: str | None = None,
        dtype: str = "auto",
        engine: str = "hf",
    ) -> None:
        """Nothing is loaded yet; `ModelJudge` has the settings that are not here.

        Args:
            model: hub id or folder.
            prompt_file: the rubric, see `PromptText`.
            system: the system message; None sends none.
            threshold: grade from which a response counts as harmful; the authors name none.
            revision: branch, tag or commit on the hub.
            batch_size: exchanges at once.
            device: torch device.
            dtype: of the weights.
            engine: "hf" or "vllm".

        Raises:
            InputError: a setting is unknown, the file cannot be used, or vLLM cannot be had.
        """
        super().__init__(model, revision, batch_size, device, dtype, engine)
        self.threshold, self._text, self._system = check_threshold(threshold), PromptText(prompt_file), system

    def _find(self) -> GuardFiles:
        return find_guard(
            self.model, self.revision, lambda renderer, tokenizer: ChatPrompt(self._text, self._system, tokenizer)
        )

    def _settings(self) -> dict[str, object]:
        return {"threshold": self.threshold}

    def _words(self) -> tuple[int, ...]:
        return ()

    def _verdict(self, readings: Sequence[Reading]) -> Verdict:
        (given,) = readings
        return parse_rubric(given.text, self.threshold)
