"""The requests of a run's tasks as its models are asked them, made by a tokenizer alone: no model is loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...tasks.catalog import TaskInfo
from ..config.model import RunConfig
from .generate import loaded_tasks

__all__ = ["Asked", "Asker", "Requests", "asker_for", "requests_of"]


class Asked(NamedTuple):
    """One document of a task with the requests that it becomes."""

    doc_id: int
    doc: dict[str, Any]
    target: Any
    arguments: Sequence[tuple[Any, ...]]
    """Of each request: the text before the answer, and settings of the generation or the continuation to be scored."""


class Requests(NamedTuple):
    """A task as it is asked."""

    task: Any
    """lm-eval's."""
    documents: int
    """How many a run asks."""
    asked: Sequence[Asked]


class Asker:
    """What lm-eval needs of a model to write its requests: the tokenizer, and prompts as the engines write them.

    Args:
        tokenizer: the model's; it must have a chat template.
    """

    can_perturb = True
    """Requests of a sweep can be written."""

    def __init__(self, tokenizer: Any) -> None:
        from ..engines.stored import StoredAnswers

        self.tokenizer = tokenizer
        self.chat_template_args: dict[str, Any] = {}
        self._template = StoredAnswers.apply_chat_template
        self.add_bos_token = None

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval."""
        return str(self.tokenizer.name_or_path)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As the engines do."""
        return str(self._template(self, chat_history, add_generation_prompt))  # type: ignore[arg-type]

    def ids(self, text: str) -> list[int]:
        """The tokens of a prompt, as the engines make them."""
        from lm_eval.models.huggingface import HFLM

        return list(HFLM.tok_encode(self, text))

    @property
    def prefix_token_id(self) -> int | None:
        """For lm-eval: the token that it takes for the beginning of a sequence."""
        bos, eos = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        found = eos if bos is None else bos
        return None if found is None else int(found)


def asker_for(folder: Path) -> Asker:
    """The asker of a model at hand.

    Raises:
        InputError: no tokenizer lies there, or it has no chat template, or one that opens no answer.
    """
    from ...restore.models.loading import load_tokenizer
    from ..engines.prompt_checks import check_chat_template

    tokenizer = load_tokenizer(str(folder))
    check_chat_template(tokenizer)
    return Asker(tokenizer)


def requests_of(asker: Asker, task: TaskInfo, config: RunConfig, first: int | None = None) -> Requests:
    """The documents of one task, in order, with their requests.

    Args:
        asker: of the model that is asked.
        task: which one.
        config: limit and data sources.
        first: stop after so many documents.

    Raises:
        InputError: the task or its data cannot be had.
    """
    from ...tasks.judging import deferred

    loaded = loaded_tasks([task], config, asker.tokenizer_name)["tasks"][task.name]
    limit = min(first, config.limit or first) if first else config.limit
    with deferred():  # no judge is looked for
        loaded.build_all_requests(
            limit=limit, rank=0, world_size=1, apply_chat_template=True, fewshot_as_multiturn=True,
            chat_template=asker.apply_chat_template, tokenizer_name=asker.tokenizer_name,
        )  # fmt: skip
    found: dict[int, list[Any]] = {}
    for instance in loaded.instances:
        found.setdefault(int(instance.doc_id), []).append(instance)
    asked = [
        Asked(doc_id, instances[0].doc, loaded.doc_to_target(instances[0].doc), [each.args for each in instances])
        for doc_id, instances in sorted(found.items())
    ]
    documents = len(loaded.eval_docs)
    return Requests(loaded, min(documents, config.limit or documents), asked)
