"""The generate stage: one checkpoint answers the requests of its tasks; nothing is judged yet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..tasks.catalog import TaskInfo, tasks_dir
from ..tasks.catalog import tasks as catalog
from .config_model import RunConfig
from .digests import code_digest, digest_of, file_digest
from .models import ModelSource
from .store import Point, Sample, Store
from .sweep import swept

__all__ = ["JUDGED", "Answered", "cell_key", "cell_parts", "evaluate", "load_target", "task_infos"]

JUDGED = ("hrr", "prefill", "over_refusal", "visage")
"""The roles whose responses go before the judges."""

FEWSHOT_SEED = 1234
"""lm-eval's own default."""
OnDone = Callable[[int, int], None]
"""Called with (answers so far, requests so far) as they come."""


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


def task_infos(config: RunConfig) -> dict[str, TaskInfo]:
    """What is known of each task of a run; tasks of lm-eval itself are utility tasks with their first metric."""
    known = catalog(*map(Path, config.tasks.include))
    names = (*config.tasks.safety, *config.tasks.utility)
    return {name: known.get(name) or TaskInfo(name, None, "utility", "", "", True, {}) for name in names}


def cell_parts(task: TaskInfo, model: ModelSource, adapter: str, config: RunConfig) -> dict[str, Any]:
    """Everything that decides what a cell holds: model, adapter, task with its data, settings and code."""
    sources = {"advbench_csv": config.data.advbench_csv, "dolly_jsonl": config.data.dolly_jsonl}
    return {
        "model": model.digest,
        "adapter": adapter,
        "task": task.name,
        "definition": file_digest(task.path) if task.path else None,
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
    checkpoint: Path | None,
    identity: Mapping[str, Any],
    tasks: Sequence[TaskInfo],
    model: ModelSource,
    config: RunConfig,
    store: Store,
    on_done: OnDone,
) -> dict[str, Answered]:
    """Runs the tasks through lm-eval on one checkpoint.

    Args:
        target: base model and tokenizer; the adapter is put on it and taken off again.
        checkpoint: an adapter or a whole model, or None for the base itself.
        identity: digests of weights and adapter, for the keys of the answers.
        tasks: what to run.
        model: where the base comes from.
        config: limit, batch size and data sources.
        store: where answers are kept.
        on_done: called as answers come.

    Returns:
        Task name -> what its answers come to.
    """
    from .engines.hf import HFEngine

    with _checkpoint_on(target[0], checkpoint, config) as loaded:
        engine = HFEngine(loaded, target[1], dict(identity), store, config.batch_size, on_done)
        results = _lm_eval(engine, tasks, model, config)
        return {task.name: _outcome(task, results, engine) for task in tasks}


@contextmanager
def _checkpoint_on(base: Any, folder: Path | None, config: RunConfig) -> Iterator[Any]:
    """The model that a checkpoint stands for: the base with its adapter, which is taken off again, or a whole model."""
    from ..restore.checkpoint import kind_of
    from ..restore.loading import load_adapter, load_base

    if folder is None:
        yield base
    elif kind_of(folder) == "full":
        yield load_base(str(folder), None, config.dtype, config.device)
    else:
        adapted = load_adapter(base, folder)
        try:
            yield adapted
        finally:
            adapted.unload()


def _lm_eval(engine: Any, tasks: Sequence[TaskInfo], model: ModelSource, config: RunConfig) -> dict[str, Any]:
    """lm-eval's own evaluation with the judging put off (its `simple_evaluate` without the report on the machine)."""
    from lm_eval.evaluator import evaluate as lm_evaluate
    from lm_eval.tasks import TaskManager

    from ..tasks.judging import deferred

    given = {"advbench_csv": config.data.advbench_csv, "dolly_jsonl": config.data.dolly_jsonl}
    metadata = {"tokenizer": model.location, **{key: path for key, path in given.items() if path}}
    folders = [str(tasks_dir()), *config.tasks.include]
    manager = TaskManager(
        include_path=folders, include_defaults=any(task.path is None for task in tasks), metadata=metadata
    )
    loaded = manager.load([task.name for task in tasks])
    for task in loaded["tasks"].values():
        if config.max_gen_toks and task.get_config("output_type") == "generate_until":
            task.set_config(key="generation_kwargs", value={"max_gen_toks": config.max_gen_toks}, update=True)
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
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
        return Answered(len(rows), samples=[_sample(row) for row in rows])
    values = results["results"][task.name]
    metrics = {key.split(",")[0]: value for key, value in values.items() if "," in key and "_stderr" not in key}
    metric = metrics.get(task.metric) if task.metric else next(iter(metrics.values()), None)
    if metric is None:
        raise InputError(
            f"lm-eval reports no metric '{task.metric}' for the task '{task.name}'; it reports {sorted(metrics)}."
        )
    return Answered(len(rows), float(metric))


def _sample(row: Mapping[str, Any]) -> Sample:
    from ..tasks.judging import exchange_of

    answer = row["resps"][0][0]
    return Sample(int(row["doc_id"]), *exchange_of(row["doc"], answer))


def cell_key(parts: Mapping[str, Any]) -> str:
    """The key of a cell in the store."""
    return digest_of(parts)
