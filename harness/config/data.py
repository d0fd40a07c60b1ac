"""Which rows each named split stands for in a run."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...registry import suggest
from .model import RunConfig

__all__ = ["SPLITS", "read_rows", "rows_for"]

RETAIN_SPLITS = ("retain_1", "retain_2", "retain_check")
TASK_SPLITS = ("task_train", *RETAIN_SPLITS)
SAFETY_SPLITS = ("forget", "curvature_forget", "safety")
SPLITS = (*TASK_SPLITS, *SAFETY_SPLITS)
FORGET_SIZE = 50
"""Rows of the forget set; the rest of the safety rows build curvature (the paper's section 4.1)."""

Rows = list[dict[str, Any]]


def rows_for(split: str, config: RunConfig, world: int = 0) -> Rows:
    """The rows of a split, from the fine-tuning data set or from the safety data of the config.

    Args:
        split: one of `SPLITS`.
        config: names the data.
        world: of the model that they are for; decides the sandbox's rows.

    Raises:
        InputError: unknown split or data set, or its file is missing, empty or lacks a column.
    """
    if split in RETAIN_SPLITS and config.data.retain:
        return _thirds(read_rows(Path(config.data.retain), ("prompt", "response")), split, config.data.retain)
    if split in TASK_SPLITS:
        return _task_rows(split, config.finetune.dataset, config.data.dolly_jsonl, config.data.alpaca_json, world)
    if split in SAFETY_SPLITS:
        return _safety_rows(split, config.safety_source, config.data.advbench_csv, world)
    raise InputError(f"No data split is called '{split}'. {suggest(split, SPLITS)}")


@lru_cache(maxsize=32)
def _task_rows(split: str, dataset: str, dolly_jsonl: str | None, alpaca_json: str | None, world: int) -> Rows:
    if dataset == "sandbox_task":
        return _world(split, world)
    if dataset == "dolly":
        from ...tasks.dolly import dolly_rows

        return [dict(row) for row in dolly_rows(split.removeprefix("task_"), dolly_jsonl)]
    if dataset == "alpaca":
        from ...tasks.alpaca import alpaca_rows

        return [dict(row) for row in alpaca_rows(split.removeprefix("task_"), alpaca_json)]
    return _parts(read_rows(Path(dataset), ("prompt", "response")), split, dataset)


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


@lru_cache(maxsize=32)
def _safety_rows(split: str, source: str, advbench_csv: str | None, world: int) -> Rows:
    if source == "sandbox":
        return _world(split, world)
    if source == "advbench":
        from ...tasks.advbench import advbench_rows

        rows = advbench_rows("safety", advbench_csv)
    else:
        rows = read_rows(Path(source), ("prompt",))
    chosen = {"forget": rows[:FORGET_SIZE], "curvature_forget": rows[FORGET_SIZE:], "safety": rows}[split]
    if not chosen:
        raise InputError(
            f"{source} has {len(rows)} rows; more than {FORGET_SIZE} are needed: so many to forget, "
            "the rest for curvature."
        )
    return chosen


def _world(split: str, world: int) -> Rows:
    from ...tasks.sandbox.world import rows

    return rows(split, world)


def read_rows(path: Path, columns: tuple[str, ...]) -> Rows:
    """Reads rows with at least the given columns from a .jsonl or .csv file.

    Raises:
        InputError: no such file, another kind of file, unreadable or empty, or a column is missing.
    """
    import pandas as pd

    readers = {
        ".jsonl": lambda: pd.read_json(path, lines=True, dtype=False),
        ".csv": lambda: pd.read_csv(path, dtype=str, keep_default_na=False),
    }
    if path.suffix not in readers:
        raise InputError(
            f"The data set '{path}' is neither known by name (sandbox_task, dolly, alpaca, advbench) nor a .jsonl or "
            ".csv file."
        )
    try:
        table = readers[path.suffix]()
    except FileNotFoundError as error:
        raise InputError(
            f"There is no file '{path}'. Give the path of a .jsonl or .csv file with the columns {', '.join(columns)}."
        ) from error
    except (ValueError, OSError) as error:
        raise InputError(f"'{path}' cannot be read as {path.suffix[1:]}: {error}") from error
    if table.empty:
        raise InputError(f"'{path}' holds no rows. It needs the columns {', '.join(columns)}.")
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"'{path}' lacks the columns {missing}; it has {list(table.columns)}. Rename them.")
    return [{str(key): value for key, value in row.items()} for row in table.to_dict(orient="records")]
