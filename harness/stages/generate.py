"""The generate stage: one checkpoint answers the requests of its tasks; nothing is judged yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...results.method_result import ROLES
from ...tasks.catalog import TaskInfo, defining_files, tasks_dir
from ...tasks.catalog import tasks as catalog
from ...tasks.rows.formats import parted
from ...vllm_setup import vllm_version
from ..config.model import RunConfig
from ..engines.choice import EngineName
from ..store.digests import code_digest, digest_of, file_digest
from ..store.store import Point, Sample
from .models import ModelSource
from .sweep import swept

__all__ = ["JUDGED", "Answered", "cell_key", "cell_parts", "evaluate", "loaded_tasks", "task_infos"]

JUDGED = (*ROLES, "visage", "relapse")
"""The roles whose responses go before the judges."""

FEWSHOT_SEED = 1234
"""lm-eval's own default."""


@dataclass(frozen=True)
class Answered:
    """What a checkpoint's answers to one task come to."""

    n: int
    """Number of documents."""
    metric: float | None = None
    """The headline metric; None where it is judged."""
    samples: Sequence[Sample] = ()
    """What is to be judged."""
    points: Sequence[Point] = ()
    """Of a sweep, where the samples lie in it."""
    categories: Mapping[int, str] = field(default_factory=dict)
    """Document -> its kind of request, where the data tell."""


def task_infos(config: RunConfig) -> dict[str, TaskInfo]:
    """What is known of each task of a run; tasks of lm-eval itself are utility tasks with their first metric."""
    known = catalog(*map(Path, config.tasks.include))
    names = (*config.tasks.safety, *config.tasks.utility)
    return {name: known.get(name) or TaskInfo(name, None, "utility", "", "", True, {}) for name in names}


def cell_parts(
    task: TaskInfo, model: ModelSource, adapter: str, config: RunConfig, engine: EngineName
) -> dict[str, Any]:
    """Everything that decides what a cell holds: model, adapter, task with its data, settings, engine and code."""
    return {
        "model": model.digest,
        "files": dict(model.files),
        "adapter": adapter,
        "task": task.name,
        "definition": _definition(task),
        "data": {key: _content(path) for key, path in config.data.files.items()} | config.data.settings,
        "limit": config.limit,
        "max_gen_toks": config.max_gen_toks,
        "dtype": config.dtype,
        "date": str(config.date),
        "think_end_token": config.think_end_token,
        "engine": engine if engine == "hf" else f"{engine} {vllm_version()}",
        "code": code_digest("harness/engines", "restore/models", "tasks", "vllm_setup.py"),
    }


def _definition(task: TaskInfo) -> str | None:
    """Digest of a task's YAML, or of all files that say what it asks; None of one of lm-eval's own."""
    digests = [[path.name, file_digest(path)] for path in defining_files(task)]
    return str(digests[0][1]) if len(digests) == 1 else digest_of(digests) if digests else None


def _content(name: str) -> str:
    """Digest of a data file, with the part of it that is meant, or of all files in a folder of them."""
    path, part = parted(name)
    if path.is_file():
        return file_digest(path) + (f"[{part.start}:{part.stop}]" if part else "")
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return digest_of([[str(file.relative_to(path)), file_digest(file)] for file in files])


def evaluate(engine: Any, tasks: Sequence[TaskInfo], model: ModelSource, config: RunConfig) -> dict[str, Answered]:
    """Runs the tasks through lm-eval on one checkpoint.

    Args:
        engine: answers as the checkpoint does (`targets.Target.serving`).
        tasks: what to run.
        model: where the base comes from.
        config: limit and data sources.

    Returns:
        Task name -> what its answers come to.
    """
    results = _lm_eval(engine, tasks, model, config)
    return {task.name: _outcome(task, results, engine) for task in tasks}


def _lm_eval(engine: Any, tasks: Sequence[TaskInfo], model: ModelSource, config: RunConfig) -> dict[str, Any]:
    """lm-eval's own evaluation with the judging put off (its `simple_evaluate` without the report on the machine)."""
    from lm_eval.evaluator import evaluate as lm_evaluate

    from ...tasks.judging import deferred

    loaded = loaded_tasks(tasks, config, str(engine.tokenizer.name_or_path))
    for info in tasks:
        if info.role in JUDGED:
            _check_prompts(info.name, loaded["tasks"][info.name].eval_docs)
    with deferred():
        results = lm_evaluate(
            lm=engine,
            task_dict=loaded,
            limit=config.limit,
            apply_chat_template=True,
            fewshot_as_multiturn=True,
            bootstrap_iters=0,
        )
    if results is None:
        raise InputError("lm-eval returned no results: this process is not rank 0. Run safebasin in a single process.")
    return dict(results)


def loaded_tasks(tasks: Sequence[TaskInfo], config: RunConfig, tokenizer: str) -> dict[str, Any]:
    """The tasks as lm-eval has them, with the settings of a run.

    Args:
        tasks: which ones.
        config: data sources and the length of answers.
        tokenizer: folder or name of the tokenizer, for tasks whose prompts depend on it.

    Returns:
        What lm-eval's `evaluate` takes; under "tasks", each by its name.
    """
    from lm_eval.tasks import TaskManager

    folders = [str(tasks_dir()), *config.tasks.include]
    manager = TaskManager(
        include_path=folders,
        include_defaults=any(task.path is None for task in tasks),
        metadata={"tokenizer": tokenizer, **config.data.metadata},
    )
    loaded = dict(manager.load([task.name for task in tasks]))
    for task in loaded["tasks"].values():
        if config.max_gen_toks and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": config.max_gen_toks}, update=True)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    return loaded


def _check_prompts(name: str, documents: Any) -> None:
    """Before anything is generated: the judges need a `prompt` in every document."""
    for number, document in enumerate(documents):
        if not isinstance(document.get("prompt"), str) or not document["prompt"].strip():
            raise InputError(
                f"Row {number} of the task '{name}' has no text in prompt, which the judges read; it has "
                f"{', '.join(document)}. Rename or add the column, or add it in the task's process_docs."
            )


def _outcome(task: TaskInfo, results: Mapping[str, Any], engine: Any) -> Answered:
    logged = results["samples"][task.name]
    documents = {row["doc_id"]: row for row in logged}
    if not documents:
        raise InputError(f"The task '{task.name}' has no documents. Raise `limit` or mend its data.")
    rows = [row for _, row in sorted(documents.items())]
    if task.role == "visage":
        samples, points = swept(rows, engine)
        return Answered(len(rows), samples=samples, points=points)
    if task.role in JUDGED:
        kinds = {int(row["doc_id"]): category_of(row["doc"]) for row in rows}
        categories = {doc_id: kind for doc_id, kind in kinds.items() if kind}
        return Answered(len(rows), samples=[_sample(row) for row in rows], categories=categories)
    values = results["results"][task.name]
    metrics = {key.split(",")[0]: value for key, value in values.items() if "," in key and "_stderr" not in key}
    metric = metrics.get(task.metric) if task.metric else next(iter(metrics.values()), None)
    if metric is None:
        raise InputError(
            f"lm-eval reports no metric '{task.metric}' for the task '{task.name}'; it reports {sorted(metrics)}."
        )
    return Answered(len(rows), float(metric))


def category_of(document: Mapping[str, Any]) -> str:
    """The kind of request as the data name it (`category`, or XSTest's `type`); empty where they do not."""
    return next((str(document[key]) for key in ("category", "type") if document.get(key) not in (None, "")), "")


def _sample(row: Mapping[str, Any]) -> Sample:
    from ...tasks.judging import exchange_of

    answer = row["resps"][0][0]
    return Sample(int(row["doc_id"]), *exchange_of(row["doc"], answer), row["doc"].get("prefix") or "")


def cell_key(parts: Mapping[str, Any]) -> str:
    """The key of a cell in the store."""
    return digest_of(parts)
