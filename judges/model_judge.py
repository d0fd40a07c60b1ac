"""What all judges that are models have in common: finding the model, batches, both engines, the identity."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import ClassVar

from ..errors import InputError
from ..registry import suggest
from ..results.records import Verdict
from ..vllm_setup import vllm_problem
from .answer_words import Reading
from .base import Exchange
from .digests import text_digest
from .guard_engines import GuardAnswer, GuardEngine, TransformersGuard, VLLMGuard
from .guard_model import GuardFiles

__all__ = ["ModelJudge"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")
_ENGINES = ("hf", "vllm")


class ModelJudge(ABC):
    """A judge that is a causal model: it answers a prompt, or several, greedily, and the answers are read strictly.

    What is not of the answer's format is unparsed, and so is an exchange that does not fit the window. Identical
    exchanges are judged once, and batches do not depend on the order of the input.
    """

    name: ClassVar[str]
    LENGTH: ClassVar[int]
    """Tokens of an answer, at most."""
    PARSE: ClassVar[int] = 1
    """Raised whenever the same answer could be read otherwise than before; part of the identity."""

    def __init__(
        self, model: str, revision: str | None, batch_size: int, device: str | None, dtype: str, engine: str
    ) -> None:
        """Nothing is loaded yet.

        Args:
            model: hub id or folder.
            revision: branch, tag or commit on the hub.
            batch_size: exchanges judged at once by transformers; vLLM chooses itself.
            device: torch device; None takes the GPU if there is one.
            dtype: "float32", "bfloat16" or "float16"; "auto" is that of the checkpoint.
            engine: what answers: "hf" (transformers) or "vllm".

        Raises:
            InputError: unknown dtype or engine, a batch size below 1, or vLLM cannot be had.
        """
        if dtype not in _DTYPES:
            raise InputError(f"Unknown dtype '{dtype}' of {self.name}. {suggest(dtype, _DTYPES)}")
        if engine not in _ENGINES:
            raise InputError(f"Unknown engine '{engine}' of {self.name}. {suggest(engine, _ENGINES)}")
        if engine == "vllm" and (problem := vllm_problem(device)):
            raise InputError(f"{self.name}: {problem}.")
        if batch_size < 1:
            raise InputError(f"The batch_size of {self.name} is {batch_size}; it must be 1 or more.")
        self.model, self.revision = model, revision
        self.batch_size = batch_size if engine == "hf" else VLLMGuard.BATCH
        self.device, self.dtype, self.engine = device, dtype, engine
        self._files: GuardFiles | None = None
        self._engine: GuardEngine | None = None
        self._asked: tuple[int, ...] | None = None

    @abstractmethod
    def _find(self) -> GuardFiles:
        """Everything but the weights; called once."""

    @abstractmethod
    def _words(self) -> tuple[int, ...]:
        """Token ids whose logits are wanted at each step; called once."""

    @abstractmethod
    def _verdict(self, readings: Sequence[Reading]) -> Verdict:
        """What the answers to an exchange's prompts say."""

    def _settings(self) -> dict[str, object]:
        """What else can change a verdict, for the identity."""
        return {}

    def _prompts(self, exchange: Exchange) -> list[list[int]]:
        """Token ids of what is asked about an exchange."""
        return [self.files.prompt.encode(exchange)]

    @property
    def files(self) -> GuardFiles:
        """Config, tokenizer, prompt and digest; loaded once, without the weights.

        Raises:
            InputError: the model is absent, gated or not the judge's; or multimodal or an adapter, which vLLM is not
                used for.
        """
        if self._files is None:
            found = self._find()
            kind = "multimodal" if found.multimodal else "an adapter" if found.adapter else None
            if self.engine == "vllm" and kind:
                raise InputError(f"The guard '{self.model}' is {kind}: that is not offered with vLLM. Use engine: hf.")
            self._files = found
        return self._files

    @property
    def identity(self) -> str:
        """Model, settings, digests of weights and prompt, dtype, version of the parsing, vLLM; loads no weights.

        A folder counts by its name and content, not by where it lies.
        """
        files, settings = self.files, "".join(f":{name}={value}" for name, value in self._settings().items())
        model = Path(self.model).name if Path(self.model).is_dir() else self.model
        return (
            f"{self.name}:model={model}:revision={self.revision}{settings}:weights={files.digest}"
            f":template={text_digest(files.prompt.template)}:dtype={self.dtype}:parse={self.PARSE}"
        ) + (f":engine={VLLMGuard.name()}" if self.engine == "vllm" else "")

    def judge(self, exchanges: Sequence[Exchange], on_done: Callable[[int], None] | None = None) -> list[Verdict]:
        """Judges each exchange.

        Args:
            exchanges: what to judge.
            on_done: called after each batch with the number of exchanges finished so far.

        Raises:
            InputError: the model is absent, gated or not the judge's, or its template does not show an exchange.
        """
        prompts = {exchange: self._prompts(exchange) for exchange in dict.fromkeys(exchanges)}
        lengths = {exchange: max(map(len, asked)) for exchange, asked in prompts.items()}
        window = self.files.window if self.engine == "hf" else min(self.files.window, VLLMGuard.WINDOW)
        room = window - self.LENGTH
        verdicts = {
            exchange: Verdict(raw=f"(not judged: a prompt of {length} tokens, the guard has room for {room})")
            for exchange, length in lengths.items()
            if length > room
        }
        waiting = sorted(prompts.keys() - verdicts.keys(), key=lambda one: (-lengths[one], one))
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            answers = iter(self._answer([ids for one in batch for ids in prompts[one]]))
            verdicts |= {one: self._verdict([self._read(next(answers)) for _ in prompts[one]]) for one in batch}
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

    def _answer(self, prompts: list[list[int]]) -> list[GuardAnswer]:
        """Greedy answers to a batch of prompts."""
        if self._asked is None:
            self._asked = self._words()
        if self._engine is None:
            vllm = self.engine == "vllm"
            self._engine = (
                VLLMGuard(self.files, self.dtype) if vllm else TransformersGuard(self.files, self.device, self.dtype)
            )
        return self._engine.answer(prompts, self._asked, self.files.ends, self.LENGTH)

    def _read(self, given: GuardAnswer) -> Reading:
        """One answer; what follows the end of text is padding of the batch."""
        answer = list(takewhile(lambda token: token not in self.files.ends, given.tokens))
        return Reading(answer, self.files.tokenizer.decode(answer, skip_special_tokens=True), given.scores)
