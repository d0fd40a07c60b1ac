"""The generate stage: one checkpoint answers the requests of its tasks; nothing is judged yet."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..tasks.catalog import TaskInfo, tasks_dir
from .config_model import RunConfig
from .digests import code_digest, digest_of, file_digest
from .models import ModelSource
from .store import Sample, Store

__all__ = ["cell_key", "cell_parts", "evaluate", "load_target"]

OnDone = Callable[[int], None]


def cell_parts(task: TaskInfo, model: ModelSource, adapter: str, config: RunConfig) -> dict[str, Any]:
    """Everything that decides what a cell holds: model, adapter, task with its data, settings and code."""
    sources = {"advbench_csv": config.data.advbench_csv, "dolly_jsonl": config.data.dolly_jsonl}
    return {
        "model": model.digest,
        "adapter": adapter,
        "task": task.name,
        "definition": file_digest(task.path),
        "data": {key: file_digest(Path(path)) for key, path in sources.items() if path},
        "limit": config.limit,
        "max_gen_toks": config.max_gen_toks,
        "dtype": config.dtype,
        "engine": "hf",
        "code": code_digest("harness/engines", "tasks"),
    }


def load_target(model: ModelSource, config: RunConfig) -> tuple[Any, Any]:
    """The base model, in eval mode on its device, and its tokenizer."""
    from ..restore.loading import load_base, load_tokenizer

    return load_base(model.location, None, config.dtype, config.device), load_tokenizer(model.location)


def evaluate(
    target: tuple[Any, Any],
    adapter: Path | None,
    identity: Mapping[str, Any],
    tasks: Sequence[TaskInfo],
    model: ModelSource,
    config: RunConfig,
    store: Store,
    on_done: OnDone,
) -> dict[str, tuple[float | None, list[Sample], int]]:
    """Runs the tasks through lm-eval on one checkpoint.

    Args:
        target: base model and tokenizer; the adapter is put on it and taken off again.
        adapter: the checkpoint, or None for the base itself.
        identity: digests of weights and adapter, for the keys of the answers.
        tasks: what to run.
        model: where the base comes from.
        config: limit, batch size and data sources.
        store: where answers are kept.
        on_done: called with the number of answers as they come.

    Returns:
        Task name -> (headline metric or None where it will be judged, samples to judge, number of documents).
    """
    from ..restore.loading import load_adapter
    from .engines.hf import HFEngine

    base, tokenizer = target
    adapted = load_adapter(base, adapter) if adapter else None
    try:
        engine = HFEngine(adapted or base, tokenizer, dict(identity), store, config.batch_size, on_done)
        results = _simple_evaluate(engine, tasks, model, config)
        return {task.name: _outcome(task, results) for task in tasks}
    finally:
        if adapted is not None:
            adapted.unload()


def _simple_evaluate(engine: Any, tasks: Sequence[TaskInfo], model: ModelSource, config: RunConfig) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    from ..tasks.judging import deferred

    given = {"advbench_csv": config.data.advbench_csv, "dolly_jsonl": config.data.dolly_jsonl}
    metadata = {"tokenizer": model.location, **{key: path for key, path in given.items() if path}}
    manager = TaskManager(include_path=[str(tasks_dir()), *config.tasks.include], include_defaults=any(task.path is None for task in tasks), metadata=metadata)
    with deferred():
        results = lm_eval.simple_evaluate(
            model=engine,
            tasks=[task.name for task in tasks],
            task_manager=manager,
            limit=config.limit,
            gen_kwargs={"max_gen_toks": config.max_gen_toks} if config.max_gen_toks else None,
            apply_chat_template=True,
            bootstrap_iters=0,
            log_samples=True,
        )
    if results is None:
        raise InputError("lm-eval returned no results: this process is not rank 0. Run safebasin in a single process.")
    return dict(results)


def _outcome(task: TaskInfo, results: Mapping[str, Any]) -> tuple[float | None, list[Sample], int]:
    logged = results["samples"][task.name]
    documents = {row["doc_id"]: row for row in logged}
    if not documents:
        raise InputError(f"The task '{task.name}' has no documents. Raise `limit` or mend its data.")
    if task.role in ("hrr", "prefill", "over_refusal"):
        return None, [_sample(row) for _, row in sorted(documents.items())], len(documents)
    values = results["results"][task.name]
    metric = next((value for key, value in values.items() if key.split(",")[0] == task.metric), None)
    if metric is None:
        raise InputError(f"lm-eval reports no metric '{task.metric}' for the task '{task.name}'; it reports {sorted(values)}.")
    return float(metric), [], len(documents)


def _sample(row: Mapping[str, Any]) -> Sample:
    from ..tasks.judging import exchange_of

    answer = row["resps"][0][0]
    return Sample(int(row["doc_id"]), *exchange_of(row["doc"], answer))


def cell_key(parts: Mapping[str, Any]) -> str:
    """The key of a cell in the store."""
    return digest_of(parts)
