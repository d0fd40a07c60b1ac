"""The transformers engine: lm-eval's HFLM on a loaded model, with every answer kept in the store."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ...errors import InputError
from ...tasks.perturbation import KEY, Perturbation
from ..digests import code_digest, digest_of
from ..store import Store
from .perturbation import Perturber

__all__ = ["HFEngine"]

Parts = dict[str, Any]


class HFEngine(HFLM):  # type: ignore[misc]  # lm-eval is untyped
    """Answers from the store where it can; what is missing is computed by HFLM itself, a batch at a time.

    A batch is stored in one transaction and batches depend only on the requests, so an interrupted run goes on
    with the very batches it would have had. A request may carry a perturbation of the weights (`engines.perturbation`).

    Args:
        model: a causal LM, with or without an active PEFT adapter, on its device and in eval mode.
        tokenizer: its tokenizer; it must have a chat template.
        identity: what distinguishes this model from every other: digests of weights and adapter, dtype.
        store: where answers are kept.
        batch_size: requests per forward pass.
        on_done: called with (requests answered, requests so far), from the store or by the model.

    Raises:
        InputError: the tokenizer has no chat template.
    """

    can_perturb = True

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        identity: Parts,
        store: Store,
        batch_size: int,
        on_done: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        if not tokenizer.chat_template:
            raise InputError(
                f"The tokenizer of '{tokenizer.name_or_path}' has no chat template, which evaluation needs."
            )
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self._identity = {**identity, "engine": "hf", "code": code_digest("harness/engines")}
        self._store = store
        self._on_done = on_done
        self._done = self._total = 0
        self._perturber = Perturber(self.model)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy or sampled continuations, one per request; prompts are checked first (see `_prompt_parts`)."""
        parts = [self._prompt_parts(request) for request in requests]
        return self._answer("generate_until", requests, parts, super().generate_until)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation and whether it is the greedy one."""
        parts = [self._pair_parts(request) for request in requests]
        answers = self._answer("loglikelihood", requests, parts, super().loglikelihood)
        return [(float(logprob), bool(greedy)) for logprob, greedy in answers]

    def _prompt_parts(self, request: Instance) -> Parts:
        """Everything that decides a generation.

        Raises:
            InputError: two beginning-of-sequence tokens, a prefilled prompt that does not end in the target's tokens,
                or a prompt that leaves no room for the answer.
        """
        text, settings = request.args
        ids = self.tok_encode(text)
        self._check_prompt(
            ids, request.doc if isinstance(request.doc, dict) else {}, int(settings.get("max_gen_toks", 256))
        )
        plain = {key: value for key, value in settings.items() if key != KEY}
        repeat = request.idx if settings.get("do_sample") else 0  # greedy answers do not differ
        return {**self._identity, "ids": ids, "settings": plain, "repeat": repeat, **self._perturbation(settings)}

    def _perturbation(self, settings: Parts) -> Parts:
        """What a request's perturbation adds to its key: where the weights are, and what drew the direction."""
        if KEY not in settings:
            return {}
        return {KEY: Perturbation.parse(settings[KEY]).weights.text, "generator": self.device.type}

    def _check_prompt(self, ids: list[int], doc: dict[str, Any], room: int) -> None:
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            raise InputError(
                f"The prompt begins with two {self.tokenizer.bos_token} tokens (ids {ids[:6]}). Mend the chat template."
            )
        forced = list(doc.get("prefix_ids") or [])
        if forced and ids[-len(forced) :] != forced:
            raise InputError(
                f"The prefilled prompt ends in token ids {ids[-len(forced) :]} instead of the target's {forced} "
                f"('{doc.get('prefix')}'): the tokenizer merges the prefix with the template. Choose another k."
            )
        if len(ids) + room > self.max_length:
            raise InputError(
                f"A prompt of {len(ids)} tokens and max_gen_toks={room} exceed the model's "
                f"{self.max_length} positions. "
                f"Lower max_gen_toks or drop the row '{str(doc.get('prompt', ''))[:60]}'."
            )

    def _pair_parts(self, request: Instance) -> Parts:
        context, continuation, *settings = request.args
        head, tail = self._encode_pair(context, continuation)
        return {**self._identity, "ids": head, "continuation": tail, **self._perturbation(*settings or [{}])}

    def _answer(
        self, kind: str, requests: list[Instance], parts: Sequence[Parts], compute: Callable[..., list[Any]]
    ) -> list[Any]:
        keys = [digest_of({"kind": kind, **part}) for part in parts]
        known = self._store.answers(keys)
        self._total += len(keys)
        self._tell(sum(key in known for key in keys))
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        try:
            for batch in self._batches(sorted(first.values()), parts):
                missing = [i for i in batch if keys[i] not in known]
                if missing:
                    answers = self._compute([requests[i] for i in missing], parts[missing[0]].get(KEY), compute)
                    rows = list(zip(missing, answers, strict=True))
                    self._store.add_answers(kind, [(keys[i], parts[i], answer) for i, answer in rows])
                    fresh = {keys[i]: answer for i, answer in rows}
                    known.update(fresh)
                    self._tell(sum(key in fresh for key in keys))
        finally:
            self._perturber.move(None)
        return [known[key] for key in keys]

    def _compute(
        self, requests: list[Instance], perturbation: str | None, compute: Callable[..., list[Any]]
    ) -> list[Any]:
        """Answers one batch by the weights that it asks for."""
        self._perturber.move(Perturbation.parse(perturbation) if perturbation else None)
        if perturbation is None:
            return compute(requests, disable_tqdm=True)
        hook: Any = self.cache_hook
        self.set_cache_hook(
            CacheHook(None)
        )  # lm-eval's own cache would store the answers under the unperturbed request
        try:
            return compute([_without_perturbation(request) for request in requests], disable_tqdm=True)
        finally:
            self.set_cache_hook(hook)

    def _tell(self, count: int) -> None:
        self._done += count
        self._on_done(self._done, self._total)

    def _batches(self, wanted: list[int], parts: Sequence[Parts]) -> list[list[int]]:
        """Requests in batches of one set of settings, longest first: always the same for the same requests."""
        groups: dict[str, list[int]] = {}
        for i in wanted:
            groups.setdefault(digest_of([parts[i].get(key) for key in ("settings", "repeat", KEY)]), []).append(i)
        size = int(self.batch_size)
        batches = []
        for group in groups.values():
            group.sort(key=lambda i: (-len(parts[i]["ids"]) - len(parts[i].get("continuation", ())), parts[i]["ids"]))
            batches += [group[start : start + size] for start in range(0, len(group), size)]
        return batches


def _without_perturbation(request: Instance) -> Instance:
    """The request as lm-eval's own model knows it."""
    context, second = request.args[:2]
    if isinstance(second, dict):
        second = {key: value for key, value in second.items() if key != KEY}
    return replace(request, arguments=(context, second))
