"""The data of lm-eval's own tasks that our groups use: pinned to a commit, and available from local files.

lm-eval loads them from the branch that the hub shows at the moment. Here each is `custom_dataset` of its task.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .hub import HubData
from .sources import local_folder, read_records

__all__ = ["BENCHMARKS", "Benchmark", "load"]

VARIABLE = "SAFEBASIN_BENCHMARKS_DIR"


@dataclass(frozen=True)
class Benchmark:
    """Data of one of lm-eval's tasks."""

    hub: HubData
    splits: tuple[str, ...]
    columns: tuple[str, ...]
    """What the task's YAML reads."""


def _benchmark(task: str, name: str, config: str | None, revision: str, splits: str, columns: str) -> Benchmark:
    otherwise = (
        f'Or give a folder that holds {task}/<split>.parquet or .jsonl ({splits}) as --metadata \'{{"benchmarks_dir": '
        f'"/path"}}\' or in ${VARIABLE}.'
    )
    return Benchmark(HubData(name, revision, otherwise, config), tuple(splits.split()), tuple(columns.split()))


_ARC = ("allenai/ai2_arc", "210d026faf9955653af8916fad021475a3f00453")
_TABLE: tuple[tuple[str, str, str | None, str, str, str], ...] = (
    ("arc_easy", _ARC[0], "ARC-Easy", _ARC[1], "train validation test", "question choices answerKey"),
    ("arc_challenge", _ARC[0], "ARC-Challenge", _ARC[1], "train validation test", "question choices answerKey"),
    ("gsm8k", "openai/gsm8k", "main", "740312add88f781978c0658806c59bc2815b9866", "train test", "question answer"),
    (
        *("toxigen", "toxigen/toxigen-data", "annotated", "ea082a8973a287097b17973343576e0c8da8eb3b"),
        *("train test", "text toxicity_ai toxicity_human"),
    ),
    (
        *("truthfulqa_mc2", "truthfulqa/truthful_qa", "multiple_choice", "741b8276f2d1982aa3d5b832d3ee81ed3b896490"),
        *("validation", "question mc1_targets mc2_targets"),
    ),
    (
        *("boolq", "aps/super_glue", "boolq", "3de24cf8022e94f4ee4b9d55a6f539891524d646"),
        *("train validation", "passage question label"),
    ),
    (
        "piqa",
        "baber/piqa",
        None,
        "142f6d7367fd9877f0fb3b5734ea6a545f54cdd1",
        "train validation",
        "goal sol1 sol2 label",
    ),
    (
        *("hellaswag", "Rowan/hellaswag", None, "218ec52e09a7e7462a5400043bb9a69a41d06b76"),
        *("train validation", "ctx_a ctx_b activity_label endings label"),
    ),
    (
        *("winogrande", "allenai/winogrande", "winogrande_xl", "01e74176c63542e6b0bcb004dcdea22d94fb67b5"),
        *("train validation", "sentence option1 option2 answer"),
    ),
)
BENCHMARKS: Mapping[str, Benchmark] = {row[0]: _benchmark(*row) for row in _TABLE}
"""By the name of lm-eval's task."""


def load(benchmark: str, **metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset`: the splits of one benchmark. Metadata read: `benchmarks_dir`.

    Args:
        benchmark: name of lm-eval's task, from the YAML's `dataset_kwargs`.
        metadata: what lm-eval hands over.

    Returns:
        Split name -> `datasets.Dataset`.

    Raises:
        InputError: unknown benchmark; the data cannot be had, or lack a column.
    """
    if benchmark not in BENCHMARKS:
        raise InputError(f"No pinned data for the task '{benchmark}'. {suggest(benchmark, BENCHMARKS)}")
    source = BENCHMARKS[benchmark]
    folder = local_folder(metadata, "benchmarks_dir", VARIABLE)
    if folder is None:
        return {split: source.hub.table(source.columns, split) for split in source.splits}
    return {split: _local(folder / benchmark, split, source) for split in source.splits}


def _local(folder: Path, split: str, source: Benchmark) -> Any:
    from datasets import Dataset
    from pyarrow import parquet

    lines, table = folder / f"{split}.jsonl", folder / f"{split}.parquet"
    if lines.is_file():
        return Dataset.from_list(read_records(lines, source.columns, source.hub.otherwise))
    if not table.is_file():
        raise InputError(f"There is neither {table} nor {lines.name}. {source.hub.otherwise}")
    found = Dataset(parquet.read_table(table))
    if missing := [column for column in source.columns if column not in found.column_names]:
        raise InputError(f"{table} has no column {missing}; it has {found.column_names}. {source.hub.otherwise}")
    return found
