"""The vLLM engine: one live engine for all checkpoints of a base, each merged into its weights in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from ...errors import InputError
from ...restore.models.chat import ends_of
from ...restore.models.checkpoint import kind_of
from ...restore.models.thinking import decoded
from ...tasks.perturbation import Perturbation
from ...vllm_setup import release, vllm_device, vllm_version
from ..config.parallel import ParallelConfig
from ..store.digests import code_digest
from ..store.store import Store
from .canary import LogProbs, check_differs, check_served, probe_ids
from .prompt_checks import check_chat_template
from .stored import OnDone, Parts, StoredAnswers
from .vllm_class import VLLM
from .vllm_settings import BATCH, engine_settings, repetition_penalty

__all__ = ["VLLMEngine"]


class VLLMEngine(StoredAnswers, VLLM):  # type: ignore[misc]  # lm-eval is untyped
    """lm-eval's VLLM behind the store; it answers inside `serving` only.

    Args:
        base: folder of the base model.
        tokenizer: its tokenizer; it must have a chat template.
        dtype: of the weights, by name.
        wanted: what transformers makes of the probe by the base (`canary.reference`).
        parallel: among how many GPUs vLLM divides the model.

    Raises:
        InputError: the tokenizer has no chat template, vLLM cannot serve the model, or serves another one.
    """

    def __init__(
        self, base: str, tokenizer: Any, dtype: str, wanted: LogProbs, parallel: ParallelConfig | None = None
    ) -> None:
        check_chat_template(tokenizer)
        self._base, self._dtype, self._wanted = base, dtype, wanted
        self._checkpoint: Path | None = None
        self._at: Perturbation | None = None
        self._set_num_threads = torch.set_num_threads  # vLLM puts a function of its own in its place
        try:
            settings = engine_settings(base, tokenizer, dtype, parallel or ParallelConfig())
            super().__init__(pretrained=base, batch_size=BATCH, **settings)
        except (RuntimeError, ValueError) as error:
            raise self._unable(error) from error
        self.tokenizer = tokenizer
        self._ends = ends_of(None, tokenizer)  # vLLM adds those of the model's own settings
        self._probe = probe_ids(tokenizer)
        try:
            self._begin()
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError):  # the first forward pass
                raise self._unable(error) from error
            raise

    def _unable(self, error: Exception) -> InputError:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return InputError(f"vLLM cannot serve '{self._base}': {first} Use engine: hf.")

    def _begin(self) -> None:
        self._digest = self._call("safebasin_begin")
        if not all(self._digest):
            raise InputError(
                f"vLLM holds '{self._base}' quantised or packed: nothing can be merged into it. Use engine: hf."
            )
        self._served = self._log_probs()
        check_served(self._base, self._served, self._wanted, self._dtype)

    @contextmanager
    def serving(
        self, checkpoint: Path | None, wanted: LogProbs, identity: Parts, store: Store, on_done: OnDone
    ) -> Iterator[Self]:
        """Puts a checkpoint into the weights, proves that it is the one served, and takes it out again afterwards.

        Args:
            checkpoint: folder of an adapter or a whole model; None is the base.
            wanted: what transformers makes of the probe by it.
            identity: digests of weights and adapter, and dtype.
            store: where answers are kept.
            on_done: called with (requests answered, requests so far).

        Raises:
            InputError: the checkpoint cannot be merged, or is not what vLLM serves then.
            RuntimeError: afterwards the weights are not the base's, to the last bit. The engine is not usable any more.
        """
        try:
            self._put(checkpoint)
            self._prove(wanted)
            code = code_digest("harness/engines", "restore/models", "vllm_setup.py")
            self.answer_from(
                store, {**identity, "engine": "vllm", "vllm": vllm_version(), "ends": self._ends, "code": code}, on_done
            )
            yield self
        except InputError:
            self._restore()
            raise
        self._restore()

    def close(self) -> None:
        """Ends the engine and frees its memory, so that a judge has the device to itself."""
        self.model.llm_engine.engine_core.shutdown()
        del self.model
        release()
        torch.set_num_threads = self._set_num_threads

    def modify_gen_kwargs(self, gen_kwargs: Parts, *args: Any, **kwargs: Any) -> tuple[Parts, list[str], int]:
        """The sampling settings; what transformers would take from the model's own generation config is added."""
        settings, until, room = VLLM.modify_gen_kwargs(gen_kwargs, *args, **kwargs)
        return {**self._penalty, "stop_token_ids": self._ends, **settings}, until, room

    def move(self, to: Perturbation | None) -> None:
        """See `StoredAnswers`."""
        if (to and to.weights) == self._at:
            return
        if to is None:
            self._restore()
            self._put(self._checkpoint)
        else:
            self._call("safebasin_move", self._base, str(self._checkpoint or ""), to.text)
            self._forget_prefixes()
        self._at = to and to.weights

    @property
    def generator(self) -> str:
        """See `StoredAnswers`."""
        return vllm_device()

    def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> list[Any]:
        """Answers as HFLM decodes them: without special tokens, which vLLM would leave in the text."""
        try:
            outputs: list[Any] = super()._model_generate(requests, generate, sampling_params)
        except BaseException:
            engine = self.model.llm_engine  # what is under way would be answered along with the next requests
            engine.abort_request(list(engine.output_processor.request_states), internal=True)
            raise
        for answer in (output.outputs[0] for output in outputs if generate):
            answer.text = decoded(self.tokenizer, answer.token_ids, self.thinking)
        return outputs

    def _put(self, checkpoint: Path | None) -> None:
        self._checkpoint, self._at = checkpoint, None
        whole = checkpoint is not None and kind_of(checkpoint) == "full"
        self._penalty = repetition_penalty(str(checkpoint) if whole else self._base)
        if checkpoint is not None:
            problems = self._call("safebasin_put", self._base, str(checkpoint))
            self._forget_prefixes()
            for problem in filter(None, problems):
                raise InputError(problem)

    def _prove(self, wanted: LogProbs) -> None:
        what, served = str(self._checkpoint or self._base), self._log_probs()
        check_served(what, served, wanted, self._dtype)
        check_differs(what, served, self._served, wanted, self._wanted)

    def _restore(self) -> None:
        found = self._call("safebasin_restore")
        self._forget_prefixes()
        if found != self._digest:
            raise RuntimeError("The weights in vLLM are not the base's again after a checkpoint was taken out.")

    def _call(self, method: str, *arguments: str) -> list[str]:
        """What each of vLLM's workers answers: each holds a part of the model, where it is divided."""
        return [str(answer) for answer in self.model.collective_rpc(method, args=arguments)]

    def _forget_prefixes(self) -> None:
        """Drops keys and values that other weights have made."""
        if not self.model.reset_prefix_cache():
            raise RuntimeError("vLLM did not reset its prefix cache: requests are still under way.")

    def _log_probs(self) -> list[float]:
        (output,) = super()._model_generate([self._probe])
        return [found[token].logprob for token, found in zip(self._probe[1:], output.prompt_logprobs[1:], strict=True)]
