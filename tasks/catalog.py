"""Which tasks there are: read from their YAML files alone, without importing lm-eval."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..registry import suggest

__all__ = ["ROLES", "GroupInfo", "TaskInfo", "defining_files", "groups", "tasks", "tasks_dir"]

NEW_TOKENS = 256
"""lm-eval's limit on an answer where a task names none."""
ROLES = ("hrr", "prefill", "over_refusal", "under_refusal", "visage", "eval_loss", "utility")


@dataclass(frozen=True)
class TaskInfo:
    """What the harness must know of a task before it is loaded."""

    name: str
    path: Path | None
    """Its YAML; None for a task that lm-eval brings."""
    role: str
    """One of `ROLES`; a task that names none is a utility task."""
    summary: str
    metric: str
    """The headline metric: the first in the YAML's `metric_list`; empty for the first that lm-eval reports."""
    is_rate: bool
    """Whether the headline metric is a share in [0, 1], shown in percent with a Wilson interval."""
    metadata: Mapping[str, Any]
    """Everything under the YAML's `metadata`."""
    loader: str = ""
    """Its `custom_dataset`, as `package.module.function`; empty where it has none."""
    new_tokens: int = NEW_TOKENS
    """The longest answer that it allows; 0 where nothing is generated."""
    data_files: tuple[str, ...] = ()
    """Local files of its rows, where it takes them as they are."""


@dataclass(frozen=True)
class GroupInfo:
    """Tasks under one name."""

    name: str
    summary: str
    members: tuple[str, ...]
    """Names of tasks, ours or lm-eval's, and of other groups."""


def tasks_dir() -> Path:
    """The folder for lm-eval's `--include_path`."""
    return Path(__file__).parent


def tasks(*folders: Path) -> dict[str, TaskInfo]:
    """All tasks in this package and in further folders, by name; a later folder's task replaces an earlier one's.

    Raises:
        InputError: a folder is missing, or a YAML cannot be read or names an unknown role.
    """
    found = {
        config["task"]: _info(path, config)
        for path, config in _configs(tasks_dir(), *folders)
        if isinstance(config.get("task"), str)
    }
    return dict(sorted(found.items()))


_READ = (".py", ".yaml", ".yml", ".json", ".jsonl", ".csv", ".tsv", ".txt", ".parquet", ".gz")


def defining_files(task: TaskInfo) -> list[Path]:
    """What decides what a task asks: its YAML, those that it includes and, of a user's task, code and rows beside it.

    The code of our own tasks, and that of lm-eval, is known by version.
    """
    if task.path is None:
        return []
    found = {*_included(task.path), *(Path(name).resolve() for name in task.data_files)}
    if not task.path.is_relative_to(tasks_dir()):
        found |= {path for path in task.path.parent.iterdir() if path.name.lower().endswith(_READ)}
    return sorted(path for path in found if path.is_file())


def _included(path: Path) -> Iterator[Path]:
    yield path
    config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    for name in _listed(config.get("include", [])):
        yield from _included(path.parent / name)


def groups() -> list[GroupInfo]:
    """The groups in this package, by name."""
    found = [config for _, config in _configs(tasks_dir()) if "group" in config]
    return [_group(config) for config in sorted(found, key=lambda config: str(config["group"]))]


def _group(config: dict[str, Any]) -> GroupInfo:
    members = tuple(item if isinstance(item, str) else str(item["task"]) for item in config["task"])
    return GroupInfo(config["group"], config["metadata"]["summary"], members)


def _configs(*folders: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no task folder {folder}.")
        for path in sorted(folder.rglob("*.yaml")):
            yield path, _read(path)


class _Loader(yaml.SafeLoader):
    """Reads `!function a.b` as the string `a.b`."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def _read(path: Path) -> dict[str, Any]:
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise InputError(f"The task file {path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The task file {path} is not YAML: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"The task file {path} must hold a mapping; it holds {type(config).__name__}.")
    included: dict[str, Any] = {}
    for name in _listed(config.pop("include", [])):
        included |= _read(path.parent / name)
    return included | config


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _info(path: Path, config: dict[str, Any]) -> TaskInfo:
    metadata = config.get("metadata") or {}
    role = metadata.get("role", "utility")
    if role not in ROLES:
        raise InputError(f"{path}: unknown role '{role}'. {suggest(str(role), ROLES)}")
    headline = (config.get("metric_list") or [{"metric": "acc", "aggregation": "mean"}])[0]
    is_rate = bool(metadata.get("is_rate", headline.get("aggregation", "mean") == "mean"))
    summary = str(metadata.get("summary", ""))
    loader = str(config.get("custom_dataset", ""))
    limit = (config.get("generation_kwargs") or {}).get("max_gen_toks", NEW_TOKENS)
    new_tokens = int(limit) if config.get("output_type") == "generate_until" else 0
    name = config["task"]
    headline_metric, rows = str(headline["metric"]), _data_files(config)
    return TaskInfo(name, path, role, summary, headline_metric, is_rate, metadata, loader, new_tokens, rows)


def _data_files(config: dict[str, Any]) -> tuple[str, ...]:
    """The files of the split that is asked, if the YAML names local ones and changes none of their rows."""
    given = (config.get("dataset_kwargs") or {}).get("data_files") or []
    if config.get("process_docs"):
        return ()
    if isinstance(given, dict):
        split = config.get("test_split") or config.get("validation_split")
        given = given.get(split) or []
    return tuple(str(name) for name in _listed(given) if "://" not in str(name) and "*" not in str(name))
