"""Does a method train on requests that the run's tasks measure? Asked before each method's training."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tasks.catalog import TaskInfo, tasks
from ...tasks.overlap import check_overlap
from ..config.model import RunConfig

__all__ = ["check_benign", "check_leaks", "left_out", "prompts_of"]

_USES = {
    **{"forget": "forget", "curvature_forget": "curvature", "safety": "salora"},
    **{"validation": "validation", "relapse": "relapse"},
}
"""Data split -> its use (`tasks.overlap.ROLES`)."""
_HARMFUL = ("hrr", "prefill", "under_refusal")
"""Roles of tasks whose requests a method must not have seen."""
_BENIGN = ("over_refusal", "eval_loss")
"""Roles of tasks whose requests an alignment must not have seen."""


def check_leaks(data: Mapping[str, Sequence[Mapping[str, Any]]], config: RunConfig, model: str = "") -> None:
    """Compares the safety rows that a method is given with the requests of the config's safety tasks.

    Args:
        data: split name -> rows, as `rows_for` gives them.
        config: names the tasks and their data files.
        model: folder of the model that learns from them; a sandbox task asks it the requests of its own world.

    Raises:
        InputError: they share requests.
    """
    prompts = {_USES[split]: [str(row["prompt"]) for row in rows] for split, rows in data.items() if split in _USES}
    if prompts:
        check_overlap(prompts | {"evaluation": list(_evaluated(config, model))})


def check_benign(rows: Sequence[Mapping[str, Any]], config: RunConfig, model: str = "") -> None:
    """Compares the benign rows of an alignment with the requests of over-refusal and of the evaluation loss.

    Args:
        rows: column `prompt`.
        config: as for `check_leaks`.
        model: as for `check_leaks`.

    Raises:
        InputError: they share requests.
    """
    check_overlap(
        {"benign": [str(row["prompt"]) for row in rows], "evaluation": list(_evaluated(config, model, _BENIGN))}
    )


def _evaluated(config: RunConfig, model: str, roles: Sequence[str] = _HARMFUL) -> Iterator[str]:
    known = tasks(*map(Path, config.tasks.include))
    for name in (*config.tasks.safety, *config.tasks.utility):
        if name in known and known[name].role in roles and known[name].loader:
            yield from prompts_of(known[name], config, model)


def left_out(config: RunConfig) -> list[str]:
    """What tasks leave out of their data because methods may train on it (`data.advbench_overlap`), a line each.

    Tasks that leave out nothing, or whose data cannot be had, have none.
    """
    known, lines = tasks(*map(Path, config.tasks.include)), []
    for name in config.tasks.safety:
        if "advbench_overlap" in known[name].metadata:
            whole = len(prompts_of(known[name], config, advbench_overlap="keep"))
            if out := whole - len(prompts_of(known[name], config)):
                lines.append(
                    f"{name}: {out} of {whole} requests are left out, because they are AdvBench's safety rows."
                )
    return lines


def prompts_of(task: TaskInfo, config: RunConfig, model: str = "", **changed: str) -> tuple[str, ...]:
    """The requests of a task that has a loader, perhaps under changed metadata; none where its data cannot be had."""
    return _prompts(task.loader, tuple(sorted((_metadata(task, config, model) | changed).items())))


def _metadata(task: TaskInfo, config: RunConfig, model: str) -> dict[str, Any]:
    """What lm-eval would hand to the loader; k = 0, because then a prefilling task needs no tokenizer."""
    scalars = {key: value for key, value in task.metadata.items() if isinstance(value, str | int | float)}
    return {**scalars, **config.data.metadata, "tokenizer": model, "k": 0, "fixed_k": 0}


@lru_cache(maxsize=16)
def _prompts(loader: str, metadata: tuple[tuple[str, Any], ...]) -> tuple[str, ...]:
    module, _, name = loader.rpartition(".")
    try:
        load = getattr(import_module(module), name, None)
        table = load(**dict(metadata))["test"] if load else None
    except (ImportError, InputError):  # a function beside its YAML; data that cannot be had, which its own stage says
        return ()
    return tuple(table["prompt"]) if table is not None and "prompt" in table.column_names else ()
