"""What the engines share: prompts are checked, and every answer goes to the store the moment it exists."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from ...errors import InputError
from ..digests import digest_of
from ..store import Store

__all__ = ["OnDone", "Parts", "StoredAnswers", "check_chat_template"]

Parts = dict[str, Any]
OnDone = Callable[[int, int], None]
"""Called with (answers so far, requests so far) as they come."""


def check_chat_template(tokenizer: Any) -> None:
    """Evaluation puts every prompt through the tokenizer's chat template.

    Raises:
        InputError: the tokenizer has none.
    """
    if not tokenizer.chat_template:
        raise InputError(f"The tokenizer of '{tokenizer.name_or_path}' has no chat template, which evaluation needs.")


class StoredAnswers(TemplateLM):  # type: ignore[misc]  # lm-eval is untyped
    """Answers from the store where it can; what is missing is computed by the lm-eval model behind it, by batches.

    An engine names it before that model among its bases and calls `answer_from`. A batch is stored in one transaction
    and batches depend only on the requests, so an interrupted run goes on with the very batches it would have had.
    """

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
        return {**self._identity, "ids": ids, "settings": settings, "repeat": request.idx}

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
        context, continuation = request.args
        head, tail = self._encode_pair(context, continuation)
        return {**self._identity, "ids": head, "continuation": tail}

    def _answer(
        self, kind: str, requests: list[Instance], parts: Sequence[Parts], compute: Callable[..., list[Any]]
    ) -> list[Any]:
        keys = [digest_of({"kind": kind, **part}) for part in parts]
        known = self._store.answers(keys)
        self._total += len(keys)
        self._tell(sum(key in known for key in keys))
        first = {key: i for i, key in reversed(list(enumerate(keys)))}
        for batch in self._batches(list(first.values()), parts):
            missing = [i for i in batch if keys[i] not in known]
            while missing:
                answers = self._computed([requests[i] for i in missing], compute)
                fresh = {keys[i]: answer for i, answer in zip(missing, answers, strict=False)}
                self._store.add_answers(kind, [(keys[i], parts[i], fresh[keys[i]]) for i in missing[: len(answers)]])
                known.update(fresh)
                self._tell(sum(key in fresh for key in keys))
                missing = missing[len(answers) :]
        return [known[key] for key in keys]

    def _computed(self, requests: list[Instance], compute: Callable[..., list[Any]]) -> list[Any]:
        """The answers to as many of the requests as fit into the device's memory at once, the first one at least.

        Raises:
            InputError: not even one fits.
        """
        while True:
            try:
                return compute(requests[: self._fitting], disable_tqdm=True)
            except torch.OutOfMemoryError as error:
                self._fitting = min(self._fitting, len(requests)) // 2
                if not self._fitting:
                    raise InputError(
                        f"Not even one request fits into the device's memory: {str(error).splitlines()[0]} "
                        "Lower max_gen_toks, choose a 16-bit dtype, or free the device of other work."
                    ) from error
            torch.cuda.empty_cache()
            self._say(f"out of memory: going on with batches of {self._fitting}")

    def _tell(self, count: int) -> None:
        self._done += count
        self._on_done(self._done, self._total)

    def _batches(self, wanted: list[int], parts: Sequence[Parts]) -> list[list[int]]:
        """Requests in batches of one set of settings, longest first: always the same for the same requests."""
        groups: dict[str, list[int]] = {}
        for i in wanted:
            groups.setdefault(digest_of([parts[i].get("settings"), parts[i].get("repeat")]), []).append(i)
        size = int(self.batch_size)
        batches = []
        for group in groups.values():
            group.sort(key=lambda i: (-len(parts[i]["ids"]) - len(parts[i].get("continuation", ())), parts[i]["ids"]))
            batches += [group[start : start + size] for start in range(0, len(group), size)]
        return batches
