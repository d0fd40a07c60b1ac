"""Which rows each named split stands for in a run."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...registry import suggest
from ...tasks.overlap import normal
from ...tasks.rows.formats import parted
from ...tasks.rows.reader import Rows as Read
from ...tasks.rows.reader import is_hub, read_rows
from ...tasks.splits import order
from .alignment import AlignConfig
from .model import SANDBOX_SETS, RunConfig

__all__ = [
    "SAFETY_SETS",
    "SPLITS",
    "TASK_SETS",
    "TASK_SPLITS",
    "aligned_safety_rows",
    "benign_rows",
    "own_rows",
    "own_rows_of",
    "own_sources",
    "rows_for",
    "said",
]

TASK_SETS = (*SANDBOX_SETS, "dolly", "alpaca")
"""Data sets to fine-tune on that are known by name."""
SAFETY_SETS = ("auto", "sandbox", "advbench")
"""Harmful prompts that are known by name."""
PROMPTS, EXCHANGES = ("prompt",), ("prompt", "response")
"""What harmful prompts need, and rows of a task."""

RETAIN_SPLITS = ("retain_1", "retain_2", "retain_check")
TASK_SPLITS = ("task_train", *RETAIN_SPLITS)
SAFETY_SPLITS = ("forget", "curvature_forget", "safety")
SPLITS = (*TASK_SPLITS, *SAFETY_SPLITS, "validation", "relapse")
FORGET_SIZE = 50
"""Rows of the forget set; the rest of the safety rows build curvature (the paper's section 4.1)."""

ALIGN_SEED = 2025

Rows = list[dict[str, Any]]


def rows_for(split: str, config: RunConfig, world: int = 0) -> Rows:
    """The rows of a split, from the fine-tuning data set or from the safety data of the config.

    Rows that an alignment of the config keeps to itself are left out: its benign rows, and its part of the safety rows
    where `safety_rows` gives it a part.

    Args:
        split: one of `SPLITS`.
        config: names the data.
        world: of the model that they are for; decides the sandbox's rows.

    Raises:
        InputError: unknown split or data set, or its file is missing, empty or lacks a column.
    """
    rows = _rows(split, config, world)
    if split not in TASK_SPLITS:
        return rows
    aligns = [spec.align for spec in config.models if spec.align]
    left = _without(rows, [row for align in aligns for row in benign_rows(align, config, world)])
    if not left:
        raise InputError(
            f"All {len(rows)} rows of the split '{split}' are benign rows of the alignment. Give it others (`benign`), "
            "or fewer of them (`benign_rows`)."
        )
    return left


def aligned_safety_rows(align: AlignConfig, config: RunConfig, world: int = 0) -> Rows:
    """The safety rows whose refusals an alignment teaches: all of them, or `safety_rows` in the order of their digests.

    Args:
        align: says how many.
        config: names them.
        world: as for `rows_for`.

    Raises:
        InputError: they cannot be had, or it takes all and leaves none to the methods.
    """
    rows = _all_safety_rows(config, world)
    if align.safety_rows is None:
        return rows
    if align.safety_rows >= len(rows):
        raise InputError(
            f"align.safety_rows is {align.safety_rows}, and there are {len(rows)}. Leave some to the methods, or leave "
            "the key out: alignment and methods then share them all."
        )
    return _drawn(rows, align.safety_rows)


def _drawn(rows: Rows, number: int) -> Rows:
    return sorted(rows, key=lambda row: order(ALIGN_SEED, "align", row["prompt"]))[:number]


def _without(rows: Rows, taken: Rows) -> Rows:
    prompts = {normal(row["prompt"]) for row in taken}
    return [row for row in rows if normal(row["prompt"]) not in prompts] if prompts else rows


def benign_rows(align: AlignConfig, config: RunConfig, world: int = 0) -> Rows:
    """The benign rows of an alignment, in the order of their digests.

    Args:
        align: names them and says how many.
        config: names the rows to fine-tune on, which are taken where `align` names none.
        world: as for `rows_for`.

    Raises:
        InputError: the rows cannot be had.
    """
    if align.benign is None:
        rows = _rows("task_train", config, world)
        most = len(rows) // 2
    else:
        rows = own_rows_of(align.benign, EXCHANGES if align.answers == "given" else PROMPTS, align.columns).rows
        most = len(rows)
    return _drawn(rows, min(align.benign_rows, most))


def _rows(split: str, config: RunConfig, world: int) -> Rows:
    if split in RETAIN_SPLITS and config.data.retain:
        read = own_rows(config)["data.retain"]
        return _thirds(read.rows, split, config.data.retain)
    if split in TASK_SPLITS:
        if config.finetune.dataset in TASK_SETS:
            return _task_rows(split, config.finetune.dataset, config.data.dolly_jsonl, config.data.alpaca_json, world)
        return _parts(own_rows(config)["finetune.dataset"].rows, split, config.finetune.dataset)
    if split in SAFETY_SPLITS:
        return _safety_rows(split, config, world)
    if split == "validation":
        return _validation(config, world)
    if split == "relapse":
        return _relapse(config, world)
    raise InputError(f"No data split is called '{split}'. {suggest(split, SPLITS)}")


@lru_cache(maxsize=32)
def _task_rows(split: str, dataset: str, dolly_jsonl: str | None, alpaca_json: str | None, world: int) -> Rows:
    if dataset == "sandbox_task":
        return _world(split, world)
    if dataset == "sandbox_entangled":
        from ...tasks.sandbox.entangled import task_rows

        return task_rows(split, world)
    if dataset == "dolly":
        from ...tasks.dolly import dolly_rows

        return [dict(row) for row in dolly_rows(split.removeprefix("task_"), dolly_jsonl)]
    from ...tasks.alpaca import alpaca_rows

    return [dict(row) for row in alpaca_rows(split.removeprefix("task_"), alpaca_json)]


def _parts(rows: Rows, split: str, dataset: str) -> Rows:
    """Cuts a user's own file, in its order: the last fifth is held out from training, a third of that for each use."""
    held = len(rows) // 5
    if held < len(TASK_SPLITS) - 1:
        raise InputError(f"{dataset} has {len(rows)} rows; at least 15 are needed, since a fifth of them is held out.")
    if split == "task_train":
        return rows[: len(rows) - held]
    return _thirds(rows[len(rows) - held :], split, dataset)


def _thirds(rows: Rows, split: str, dataset: str) -> Rows:
    """Every third row, from a place of its own for each retain set."""
    if len(rows) < len(RETAIN_SPLITS):
        raise InputError(f"{dataset} has {len(rows)} rows; the three retain sets need at least one each.")
    return rows[RETAIN_SPLITS.index(split) :: len(RETAIN_SPLITS)]


def _safety_rows(split: str, config: RunConfig, world: int) -> Rows:
    parts = [spec.align for spec in config.models if spec.align and spec.align.safety_rows]
    taken = [row for align in parts for row in aligned_safety_rows(align, config, world)]
    if config.safety_source == "sandbox":
        return _without(_world(split, world), taken)
    rows = _without(_all_safety_rows(config, world), taken)
    chosen = {"forget": rows[:FORGET_SIZE], "curvature_forget": rows[FORGET_SIZE:], "safety": rows}[split]
    if not chosen:
        raise InputError(
            f"{config.safety_source} has {len(rows)} rows{' that no alignment takes' if taken else ''}; more than "
            f"{FORGET_SIZE} are needed: so many to forget, the rest for curvature."
        )
    return chosen


def _all_safety_rows(config: RunConfig, world: int) -> Rows:
    source = config.safety_source
    if source == "sandbox":
        return _world("safety", world)
    if source == "advbench":
        from ...tasks.advbench import advbench_rows

        return advbench_rows("safety", config.data.advbench_csv)
    return own_rows(config)["data.safety"].rows


def _validation(config: RunConfig, world: int) -> Rows:
    """Harmful prompts that settings are chosen on."""
    if config.data.validation:
        return own_rows(config)["data.validation"].rows
    if config.safety_source == "sandbox":
        return _world("harmful_validation", world)
    raise InputError(
        "data.validation is missing: settings are chosen on harmful prompts that nothing else uses. Give a file of "
        "them, or a part of one (FILE[first:end])."
    )


def _relapse(config: RunConfig, world: int) -> Rows:
    """Harmful rows, prompt and response, to fine-tune a finished checkpoint on; the sandbox's are placeholder steps."""
    if config.data.relapse:
        return own_rows(config)["data.relapse"].rows
    if config.safety_source == "sandbox":
        return [{"prompt": row["prompt"], "response": row["target"]} for row in _world("harmful_validation", world)]
    raise InputError(
        "data.relapse is missing: tasks.relapse fine-tunes on harmful rows, and only the sandbox has its own. Give a "
        "file of them (prompt and response), or set tasks.relapse.harmful=[]."
    )


def _world(split: str, world: int) -> Rows:
    from ...tasks.sandbox.world import rows

    return rows(split, world)


def own_rows(config: RunConfig, hub: bool = True) -> dict[str, Read]:
    """The user's own rows that a config names, by the key that names them.

    Args:
        config: the run.
        hub: whether data sets on the hub are loaded too.

    Raises:
        InputError: the rows of a key cannot be had, or are unusable.
    """
    return {
        key: own_rows_of(source, needs, columns)
        for key, (source, needs, columns) in own_sources(config).items()
        if hub or not is_hub(source)
    }


def own_sources(config: RunConfig) -> dict[str, tuple[str, tuple[str, ...], Mapping[str, str]]]:
    """For each key that names the user's own rows: where they are, what they need, and what their columns are."""
    data = config.data
    found: dict[str, tuple[str, tuple[str, ...], Mapping[str, str]]] = {}
    if config.finetune.dataset not in TASK_SETS:
        found["finetune.dataset"] = (config.finetune.dataset, EXCHANGES, config.finetune.columns)
    if data.safety not in SAFETY_SETS:
        found["data.safety"] = (data.safety, PROMPTS, data.safety_columns)
    if data.validation:
        found["data.validation"] = (data.validation, PROMPTS, data.validation_columns)
    if data.relapse:
        found["data.relapse"] = (data.relapse, EXCHANGES, data.relapse_columns)
    if data.retain:
        found["data.retain"] = (data.retain, EXCHANGES, data.retain_columns)
    if data.eval_rows:
        found["data.eval_rows"] = (data.eval_rows, EXCHANGES, data.eval_columns)
    for number, spec in enumerate(config.models):
        if spec.align and spec.align.benign:
            needs = EXCHANGES if spec.align.answers == "given" else PROMPTS
            found[f"models.{number}.align.benign"] = (spec.align.benign, needs, spec.align.columns)
    return found


def own_rows_of(source: str, needs: tuple[str, ...], columns: Mapping[str, str]) -> Read:
    """What one of `own_sources` holds; a file that has not changed is read once.

    Raises:
        InputError: the rows cannot be had, or are unusable.
    """
    path = parted(source)[0]
    about = path.stat() if path.is_file() else None
    return _own(source, needs, tuple(columns.items()), about and (about.st_size, about.st_mtime_ns))


@lru_cache(maxsize=32)
def _own(source: str, needs: tuple[str, ...], columns: tuple[tuple[str, str], ...], version: object) -> Read:
    return read_rows(source, needs, dict(columns))


def said(config: RunConfig) -> list[str]:
    """How the user's own files were read, and which folders of tasks bring code along that will run, a line each."""
    read = [f"{key}: {read.said}" for key, read in own_rows(config, hub=False).items()]
    coded = [folder for folder in dict.fromkeys(config.tasks.include) if _brings_code(Path(folder))]
    return read + [
        f"tasks.include: the tasks in {folder} run Python code of theirs (!function), with your permissions. "
        "Only go on if you trust it."
        for folder in coded
    ]


def _brings_code(folder: Path) -> bool:
    """Whether a task in a folder names a function, which lm-eval imports and calls."""
    return any(b"!function" in path.read_bytes() for path in sorted(folder.rglob("*.y*ml")) if path.is_file())
