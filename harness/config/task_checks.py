"""Do the tasks and judges of a config exist, and can the judges score the tasks?"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import InputError
from ...registry import suggest
from ...results.method_result import ROLES
from ...tasks.catalog import TaskInfo, tasks
from ...tasks.rows.formats import format_of
from ...tasks.sandbox.location import is_sandbox, sandbox_problem
from ...tasks.sources import read_records
from ...tasks.verdicts import judge_types
from .faults import Fault, numbered, twice
from .model import RunConfig
from .settings import check_settings

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

__all__ = [
    *("SAFETY_ROLES", "check_judges", "check_tasks", "check_what_is_judged", "hrr_task", "lm_eval_metrics"),
    "lm_eval_tasks",
]

SAFETY_ROLES = (*ROLES, "visage")
_ONE_TASK_ROLES = (*SAFETY_ROLES, "eval_loss")
"""Roles with one column each in the leaderboard."""


def check_tasks(config: RunConfig) -> Iterator[Fault]:
    """Known tasks in the list that fits their role, one for each column of the leaderboard."""
    try:
        known = tasks(*map(Path, config.tasks.include))
    except InputError as error:
        yield Fault("tasks.include", str(error))
        return
    if not config.tasks.safety and not config.tasks.utility:
        yield Fault("tasks", "there is nothing to measure; name a task under `safety` or `utility`")
    yield from twice("tasks", [*config.tasks.safety, *config.tasks.utility])
    for at, name in numbered("tasks.safety", config.tasks.safety):
        if name not in known:
            yield Fault(at, f"unknown task '{name}'. {suggest(name, _with_roles(known, SAFETY_ROLES))}")
        elif known[name].role not in SAFETY_ROLES:
            yield Fault(at, f"'{name}' measures {known[name].role}; list it under tasks.utility")
    for at, name in numbered("tasks.utility", config.tasks.utility):
        if name not in known and name not in lm_eval_tasks():
            ours = _with_roles(known, ("eval_loss", "utility"))
            yield Fault(
                at, f"no task of lm-eval or of ours is called '{name}' (groups cannot be used). {suggest(name, ours)}"
            )
        elif name in known and known[name].role in SAFETY_ROLES:
            yield Fault(at, f"'{name}' measures safety ({known[name].role}); list it under tasks.safety")
    yield from _columns_takentwice(config, known)
    for at, name in numbered("tasks.safety", config.tasks.safety):
        if name in known and known[name].role in ROLES:
            yield from _rows_without_prompt(at, known[name])


def _rows_without_prompt(at: str, task: TaskInfo) -> Iterator[Fault]:
    """The judges read `prompt`, whatever the task's doc_to_text makes of a row."""
    for name in task.data_files:
        if format_of(name):
            try:
                read_records(Path(name), ("prompt",), f"The judges of '{task.name}' read it: rename or add the column.")
            except InputError as error:
                yield Fault(at, str(error))


def hrr_task(config: RunConfig) -> str | None:
    """The run's task of harm, of which there is one at most; None where it has none."""
    known = tasks(*map(Path, config.tasks.include))
    return next((name for name in config.tasks.safety if name in known and known[name].role == "hrr"), None)


def _with_roles(known: dict[str, TaskInfo], roles: Sequence[str]) -> list[str]:
    return [name for name, info in known.items() if info.role in roles]


def _columns_takentwice(config: RunConfig, known: dict[str, TaskInfo]) -> Iterator[Fault]:
    chosen = dict.fromkeys(name for name in (*config.tasks.safety, *config.tasks.utility) if name in known)
    for role in _ONE_TASK_ROLES:
        same = [name for name in chosen if known[name].role == role]
        if len(same) > 1:
            yield Fault("tasks", f"{' and '.join(same)} would share the column {role}; run them as two configs")


@lru_cache
def lm_eval_tasks() -> frozenset[str]:
    """Names of lm-eval's own tasks, without groups; takes some seconds, so ask only for names that are not ours."""
    return frozenset(_manager().all_subtasks)


def lm_eval_metrics(name: str) -> tuple[str, ...]:
    """The metrics that a task of lm-eval's own lists, as slow as `lm_eval_tasks`.

    Empty where it leaves them to its kind, or where this lm-eval has no such task.
    """
    entry = _manager().task_index.get(name)
    listed = (entry.cfg or {}).get("metric_list") if entry else None
    return tuple(str(each["metric"]) for each in listed or ())


@lru_cache
def _manager() -> "TaskManager":
    from lm_eval.tasks import TaskManager

    return TaskManager()


def check_judges(config: RunConfig) -> Iterator[Fault]:
    """Known judges with arguments that they accept."""
    if not config.judges:
        return
    try:
        types = judge_types(config.judges)
    except InputError as error:
        yield from (Fault("judges", line) for line in str(error).splitlines())
        return
    for at, (judge_type, arguments) in numbered("judges", types):
        yield from check_settings(f"{at}.{judge_type.name}", judge_type, arguments)[1]
        model = arguments.get("model")
        if isinstance(model, str) and is_sandbox(model) and (problem := sandbox_problem(model)):
            yield Fault(f"{at}.{judge_type.name}.model", problem)


def check_what_is_judged(config: RunConfig) -> Iterator[Fault]:
    """Safety tasks have a judge, and over-refusal one that knows a refusal."""
    if config.tasks.safety and not config.judges:
        text = f"{', '.join(config.tasks.safety)} cannot be scored without a judge; name one, for example keywords"
        yield Fault("judges", text)
    try:
        known = tasks(*map(Path, config.tasks.include))
        decided = {facet for judge, _ in judge_types(config.judges) for facet in judge.decides}
    except InputError:  # reported by the checks of tasks and of judges
        return
    for at, name in numbered("tasks.safety", config.tasks.safety):
        if name in known and known[name].role in ("over_refusal", "under_refusal") and "refusal" not in decided:
            yield Fault(at, f"'{name}' needs a judge that decides refusal, and none here does; add refusal to judges")
