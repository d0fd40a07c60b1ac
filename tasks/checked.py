"""lm-eval tasks that look at what lm-eval makes of them: the `class` of this package's YAML files."""

import inspect
from collections.abc import Mapping
from typing import Any

from lm_eval.api.model import CachingLM
from lm_eval.api.task import ConfigurableTask

from ..errors import InputError
from .judging import JudgeFilter
from .prefill import load_tokenizer

__all__ = ["SIGNED_CACHES", "CheckedTask", "PrefillTask"]

SIGNED_CACHES: set[str] = set()
"""What `--use_cache` named in this process, once the cache was found to hold the evaluated model's answers."""


class CheckedTask(ConfigurableTask):  # type: ignore[misc]
    """An ordinary YAML task that refuses both of lm-eval's caches.

    The key of `--cache_requests` leaves out the prompt's template, its data and `gen_prefix`, so that an edited task,
    another k or another data file would silently be run on the old prompts. That of `--use_cache` leaves out the model,
    so that a second model would silently be given the first one's answers.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def build_all_requests(self, **settings: Any) -> None:
        """Makes the requests.

        Raises:
            InputError: `--cache_requests` is on, or `--use_cache` with a cache that may be another model's.
        """
        if settings.get("cache_requests") or settings.get("rewrite_requests_cache"):
            raise InputError(
                f"{self.config.task} cannot use --cache_requests: that cache knows nothing of the task's data, its "
                "template and its prefix, and would run old prompts. Leave the option out."
            )
        cache = _cache_of_answers()
        if cache and cache.rpartition("_rank")[0] not in SIGNED_CACHES:
            raise InputError(
                f"{self.config.task} cannot use --use_cache ({cache}): that cache knows nothing of the model, and may "
                "give one model's answers for another. Leave the option out, or run `safebasin lm-eval`, which notes "
                "whose answers a cache holds."
            )
        super().build_all_requests(**settings)
        self._look_for_judges()

    def _look_for_judges(self) -> None:
        """Finds out before anything is generated whether the answers can be judged."""
        world = next((instance.doc.get("world", 0) for instance in self.instances), 0)
        for ensemble in self._filters:
            for make in ensemble.filters:
                if isinstance(made := make(), JudgeFilter):
                    made.look(world)


def _cache_of_answers() -> str | None:
    """The file from which lm-eval would take answers: known only to its `evaluate`, which is among the callers."""
    frame = inspect.currentframe()
    while frame is not None:
        model = frame.f_locals.get("lm")
        if isinstance(model, CachingLM):
            return str(model.cache_db)
        frame = frame.f_back
    return None


class PrefillTask(CheckedTask):
    """A task whose prompts must end in exactly the token ids in `prefix_ids` of their documents."""

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **kwargs: Any) -> Any:
        """The request, after a look at its prompt as the model will read it.

        Raises:
            InputError: the prompt ends in other tokens.
        """
        forced = list(doc["prefix_ids"])
        if forced:
            tokenizer = load_tokenizer(self.config.metadata or {})
            read = list(tokenizer.encode(ctx, add_special_tokens=False))[-len(forced) :]
            if read != forced:
                raise InputError(
                    f"{self.config.task}, row {doc.get('row')}: the prompt ends in token ids {read} instead of the "
                    f"{len(forced)} prefilled ones {forced} ({doc['prefix']!r}): the tokenizer merges them with what "
                    f"stands before. {self._way_out(kwargs)}"
                )
        return super().construct_requests(doc, ctx, **kwargs)

    def _way_out(self, kwargs: Mapping[str, Any]) -> str:
        return "Choose another k." if kwargs.get("apply_chat_template") else "Add --apply_chat_template."
