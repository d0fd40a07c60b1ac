"""What answers for a judge that is a model, greedily: transformers or vLLM. Both tell how its answer words scored."""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from ..errors import InputError
from ..vllm_setup import release, settle, start_settings, vllm_device, vllm_version
from .guard_model import GuardFiles, load_weights

__all__ = ["MAX_NEW_TOKENS", "GuardAnswer", "GuardEngine", "TransformersGuard", "VLLMGuard"]

MAX_NEW_TOKENS = 20
"""Of a Llama Guard: as many as "unsafe" and a list of categories need."""


class GuardAnswer(NamedTuple):
    """The greedy answer to one prompt."""

    tokens: list[int]
    """Ids, and perhaps the end of text and padding behind it."""
    scores: list[tuple[float, ...]]
    """Of each step: the logits of the words asked for ("safe" and "unsafe"), up to what is added to all."""


class GuardEngine(Protocol):
    """A loaded guard."""

    def answer(
        self, prompts: Sequence[list[int]], words: Sequence[int], ends: Sequence[int], length: int
    ) -> list[GuardAnswer]:
        """Answers prompts.

        Args:
            prompts: token ids of each.
            words: token ids whose logits are wanted, such as those of "safe" and "unsafe".
            ends: token ids that end an answer.
            length: tokens of an answer, at most.
        """
        ...

    def close(self) -> None:
        """Frees the memory; the engine must not be used any more."""
        ...


class TransformersGuard:
    """One left-padded batch at a time.

    Args:
        files: of the guard.
        device: torch device; None takes the GPU if there is one.
        dtype: of the weights.
    """

    def __init__(self, files: GuardFiles, device: str | None, dtype: str) -> None:
        self.model = load_weights(files, device, dtype)
        self._pad = files.tokenizer.pad_token_id or 0  # masked, so any id will do

    def answer(
        self, prompts: Sequence[list[int]], words: Sequence[int], ends: Sequence[int], length: int
    ) -> list[GuardAnswer]:
        """See `GuardEngine`."""
        import torch
        from transformers import GenerationConfig

        settings: Any = GenerationConfig  # its only settings: the checkpoint's are ignored
        self.model.generation_config = settings(
            do_sample=False, max_new_tokens=length, eos_token_id=list(ends) or None, pad_token_id=self._pad
        )
        device, width = self.model.device, max(map(len, prompts))
        ids = torch.tensor([[self._pad] * (width - len(one)) + one for one in prompts], device=device)
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in prompts], device=device)
        with torch.inference_mode():
            output = self.model.generate(
                ids, attention_mask=mask, output_logits=bool(words), return_dict_in_generate=True
            )  # logits of a long answer would fill the memory
        logits = [one[:, list(words)] for one in output.logits or ()]
        steps = torch.stack(logits, dim=1).double().tolist() if logits else [[] for _ in prompts]
        tokens = output.sequences[:, width:].tolist()
        return [GuardAnswer(*row) for row in zip(tokens, [list(map(tuple, one)) for one in steps], strict=True)]

    def close(self) -> None:
        """See `GuardEngine`."""
        import gc

        import torch

        del self.model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class VLLMGuard:
    """vLLM, which works on as many prompts at a time as its memory holds.

    Args:
        files: of the guard; its window is at most `WINDOW`.
        dtype: of the weights; "auto" is that of the checkpoint.

    Raises:
        InputError: vLLM cannot serve the guard.
    """

    BATCH: ClassVar[int] = 256
    """Prompts to hand over at once."""
    WINDOW: ClassVar[int] = 16384
    """Tokens of prompt and answer, at most: of the 128k positions that some guards have, a cache could hold few."""

    def __init__(self, files: GuardFiles, dtype: str) -> None:
        settle()
        import torch
        from vllm import LLM

        self._set_num_threads = torch.set_num_threads  # vLLM puts a function of its own in its place
        own = str(files.config.get_text_config().dtype or torch.float32).removeprefix("torch.")
        settings = start_settings(files.config, min(files.window, self.WINDOW), own if dtype == "auto" else dtype)
        try:
            self._llm = LLM(
                files.model, revision=files.revision, skip_tokenizer_init=True, generation_config="vllm", **settings
            )
        except (RuntimeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(f"vLLM cannot serve the guard '{files.model}': {first} Use engine: hf.") from error

    @staticmethod
    def name() -> str:
        """What answered, for the identity of verdicts."""
        return f"vllm {vllm_version()} on {vllm_device()}"

    def answer(
        self, prompts: Sequence[list[int]], words: Sequence[int], ends: Sequence[int], length: int
    ) -> list[GuardAnswer]:
        """See `GuardEngine`."""
        from vllm import SamplingParams

        greedy = SamplingParams(
            temperature=0, max_tokens=length, stop_token_ids=list(ends), detokenize=False,
            logprob_token_ids=list(words) or None,
        )  # fmt: skip
        made = self._llm.generate([{"prompt_token_ids": ids} for ids in prompts], greedy, use_tqdm=False)
        answers = [output.outputs[0] for output in made]
        return [
            GuardAnswer(
                list(one.token_ids), [tuple(step[word].logprob for word in words) for step in one.logprobs or ()]
            )
            for one in answers
        ]

    def close(self) -> None:
        """See `GuardEngine`."""
        import torch

        self._llm.llm_engine.engine_core.shutdown()
        del self._llm
        release()
        torch.set_num_threads = self._set_num_threads
