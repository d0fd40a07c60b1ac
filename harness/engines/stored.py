"""What the engines share: prompts are checked, and every answer goes to the store the moment it exists."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jinja2 import TemplateError
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from lm_eval.models.huggingface import HFLM

from ...errors import InputError
from ...restore.models.chat import begun
from ...restore.models.thinking import Answer, Thinking, split_thinking, spoken, thinking_of
from ...tasks.perturbation import KEY, Perturbation
from ..store.digests import digest_of
from ..store.store import Store
from .prompt_checks import check_prompt

__all__ = ["OnDone", "Parts", "StoredAnswers"]

Parts = dict[str, Any]
OnDone = Callable[[int, int], None]
"""Called with (answers so far, requests so far) as they come."""
Compute = Callable[..., list[Any]]


class StoredAnswers(TemplateLM):  # type: ignore[misc]  # lm-eval is untyped
    """Answers from the store where it can; what is missing is computed by the lm-eval model behind it, by batches.

    An engine names it before that model among its bases, calls `answer_from`, and says how its weights `move`.
    A batch is stored in one transaction and batches depend only on the requests, so an interrupted run goes on with
    the very batches it would have had. A request may carry a perturbation of the weights (`engines.perturbation`).
    """

    can_perturb = True
    table: int | None = None
    """Rows of the model's embedding table, where the engine knows them."""
    cache_hook: Any

    def answer_from(
        self, store: Store, identity: Parts, on_done: OnDone, say: Callable[[str], None] = lambda line: None
    ) -> None:
        """Chooses where answers are kept, and under which identity those that follow are.

        Args:
            store: where answers are kept.
            identity: what distinguishes this model from every other: digests of weights and adapter, dtype, engine.
            on_done: called with (requests answered, requests so far), from the store or by the model.
            say: called with what a user should know.
        """
        self._store, self._identity = store, identity
        self._on_done, self._say = on_done, say
        self._done = self._total = 0
        self._fitting = int(self.batch_size)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """HFLM's own, but an answer that is begun has the opening of every other."""
        if add_generation_prompt:
            return str(HFLM.apply_chat_template(self, chat_history, add_generation_prompt))
        try:
            return begun(self.tokenizer, chat_history, **self.chat_template_args)
        except TemplateError:  # as HFLM does for templates without a system's turn
            plain = [message for message in chat_history if message["role"] != "system"]
            return begun(self.tokenizer, plain, **self.chat_template_args)

    def move(self, to: Perturbation | None) -> None:
        """Puts the merged weights at a point of a sweep; None puts them back, bit for bit."""
        raise NotImplementedError

    @property
    def generator(self) -> str:
        """Type of the device that draws the directions of perturbations."""
        raise NotImplementedError

    @property
    def thinking(self) -> Thinking | None:
        """How the model thinks before it answers; None where it does not."""
        return thinking_of(self.tokenizer)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Greedy or sampled continuations, one per request; prompts are checked first (`prompt_checks`).

        Of a model that thinks, the answers after the thinking; where it has not ended, or where the answer was begun
        for the model, the block is there too. Texts to stop at are looked for in answers alone. The store keeps all.
        """
        thinking = self.thinking
        if thinking is None:
            parts = _numbered([self._prompt_parts(request) for request in requests])
            return [spoken(text) for text in self._answer("generate_until", requests, parts, super().generate_until)]
        asked = [_unstopped(request) for request in requests]
        marks = {"thinking": [thinking.begin, thinking.end]}  # which are kept in the text
        parts = _numbered([self._prompt_parts(request) | marks for request in asked])
        texts: list[str] = self._answer("generate_until", asked, parts, super().generate_until)
        return [_answer_to(request, thinking, text) for request, text in zip(requests, texts, strict=True)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability (nats) of each continuation and whether it is the greedy one.

        Of a model whose prompts begin a block of thinking, after an empty block.
        """
        if (thinking := self.thinking) is not None:
            requests = [
                replace(one, arguments=(thinking.closed(one.args[0]) if one.args[0] else "", *one.args[1:]))
                for one in requests
            ]
        parts = [self._pair_parts(request) for request in requests]
        answers = self._answer("loglikelihood", requests, parts, super().loglikelihood)
        return [(float(logprob), bool(greedy)) for logprob, greedy in answers]

    def _prompt_parts(self, request: Instance) -> Parts:
        """Everything that decides a generation."""
        text, settings = request.args
        ids = self.tok_encode(text)
        doc = request.doc if isinstance(request.doc, dict) else {}
        check_prompt(ids, doc, int(settings.get("max_gen_toks", 256)), self.tokenizer, self.max_length, self.table)
        plain = {key: value for key, value in settings.items() if key != KEY}
        return {**self._identity, "ids": ids, "settings": plain, "repeat": 0, **self._perturbation(settings)}

    def _perturbation(self, settings: Parts) -> Parts:
        """What a request's perturbation adds to its key: where the weights are, and what drew the direction."""
        if KEY not in settings:
            return {}
        return {KEY: Perturbation.parse(settings[KEY]).weights.text, "generator": self.generator}

    def _pair_parts(self, request: Instance) -> Parts:
        context, continuation, *settings = request.args
        head, tail = self._encode_pair(context, continuation) if context else ([], self.tok_encode(continuation))
        return {**self._identity, "ids": head, "continuation": tail, **self._perturbation(*settings or [{}])}

    def _answer(self, kind: str, requests: list[Instance], parts: Sequence[Parts], compute: Compute) -> list[Any]:
        keys = [digest_of({"kind": kind, **part}) for part in parts]
        known = self._store.answers(keys)
        self._total += len(keys)
        self._tell(sum(key in known for key in keys))
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        try:
            for batch in self._batches(sorted(first.values()), parts):
                missing = [i for i in batch if keys[i] not in known]
                while missing:
                    point = parts[missing[0]].get(KEY)
                    answers = self._computed([requests[i] for i in missing], point, compute)
                    rows = list(zip(missing, answers, strict=False))
                    self._store.add_answers(kind, [(keys[i], parts[i], answer) for i, answer in rows])
                    fresh = self._store.answers([keys[i] for i, _ in rows])  # another run may have been first
                    known.update(fresh)
                    self._tell(sum(key in fresh for key in keys))
                    missing = missing[len(answers) :]
        finally:
            self.move(None)
        return [known[key] for key in keys]

    def _computed(self, requests: list[Instance], perturbation: str | None, compute: Compute) -> list[Any]:
        """The answers to as many of the requests as fit into the device's memory at once, the first one at least.

        Raises:
            InputError: not even one fits.
        """
        while True:
            try:
                return self._by_moved(requests[: self._fitting], perturbation, compute)
            except torch.OutOfMemoryError as error:
                self._fitting = min(self._fitting, len(requests)) // 2
                if not self._fitting:
                    raise InputError(
                        f"Not even one request fits into the device's memory: {str(error).splitlines()[0]} "
                        "Lower max_gen_toks, choose a 16-bit dtype, or free the device of other work."
                    ) from error
            torch.cuda.empty_cache()
            self._say(f"out of memory: going on with batches of {self._fitting}")

    def _by_moved(self, requests: list[Instance], perturbation: str | None, compute: Compute) -> list[Any]:
        """Answers requests by the weights that they ask for."""
        self.move(Perturbation.parse(perturbation) if perturbation else None)
        if perturbation is None:
            return compute(requests, disable_tqdm=True)
        hook = self.cache_hook
        self.set_cache_hook(CacheHook(None))  # lm-eval's own cache would know the answers by the unperturbed request
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


def _numbered(parts: Sequence[Parts]) -> list[Parts]:
    """Tells apart the samples that are drawn from one prompt, by their order; greedy answers do not differ."""
    seen: Counter[str] = Counter()
    numbered = []
    for part in parts:
        key = digest_of(part) if part["settings"].get("do_sample") else ""
        numbered.append({**part, "repeat": seen[key] if key else 0})
        seen[key] += 1
    return numbered


def _unstopped(request: Instance) -> Instance:
    """The request without texts to stop at, which a block of thinking may hold."""
    context, settings = request.args
    return replace(request, arguments=(context, {**settings, "until": []}))


def _answer_to(request: Instance, thinking: Thinking, text: str) -> str:
    """What a task gets of a continuation."""
    context, settings = request.args
    whole = thinking.whole(context, text)
    answer = split_thinking(whole, (thinking.marks,))[1]
    begun_for_it = isinstance(request.doc, dict) and request.doc.get("prefix")
    if answer is None or (begun_for_it and answer != whole):
        return whole
    until = settings.get("until") or []
    for stop in [until] if isinstance(until, str) else until:
        answer = answer.split(stop)[0] if stop else answer
    return Answer(answer)


def _without_perturbation(request: Instance) -> Instance:
    """The request as lm-eval's own model knows it."""
    context, second = request.args[:2]
    if isinstance(second, dict):
        second = {key: value for key, value in second.items() if key != KEY}
    return replace(request, arguments=(context, second))
