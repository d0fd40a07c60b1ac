"""AdvBench: 520 harmful requests with the beginnings of compliant answers (Zou et al. 2023), loaded, never contained.

From the hub, or from the original CSV given by `--metadata '{"advbench_csv": "/path"}'` or `$SAFEBASIN_ADVBENCH_CSV`.
"""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .hub import HubData
from .judging import judges_override
from .prefill import prefilled
from .sources import as_test_split, local_file, read_goals, rows_digest
from .splits import VISAGE_ROWS, committed
from .visage import with_sweep

__all__ = ["CSV_VARIABLE", "advbench_rows", "load", "load_prefill", "load_visage"]

CSV_VARIABLE = "SAFEBASIN_ADVBENCH_CSV"
OTHERWISE = (
    "Give the original file, harmful_behaviors.csv of the repository llm-attacks/llm-attacks, as "
    f'--metadata \'{{"advbench_csv": "/path"}}\' or in ${CSV_VARIABLE}.'
)
HUB = HubData("walledai/AdvBench", "9d4730540082fa4017450b65ca1c0e1d8d30446e", OTHERWISE, gated=True)


def advbench_rows(split: str = "evaluation", source: str | Path | None = None) -> list[dict[str, Any]]:
    """The rows of one part of AdvBench.

    Args:
        split: `evaluation` (382), `evaluation_200` (in it), `safety` (138, disjoint from it), `visage` (the first 80).
        source: the CSV; without it `$SAFEBASIN_ADVBENCH_CSV`, else the hub.

    Returns:
        Dicts with `row` (index in the file), `prompt` and `target`.

    Raises:
        InputError: unknown split; the data cannot be had, or are not the 520 rows that the indices belong to.
    """
    parts = committed("advbench")
    indices = {name: parts[name] for name in ("evaluation", "evaluation_200", "safety")}
    indices["visage"] = list(range(VISAGE_ROWS))
    if split not in indices:
        raise InputError(f"AdvBench has no split '{split}'. {suggest(split, indices)}")
    rows = _all_rows(local_file({"advbench_csv": source}, "advbench_csv", CSV_VARIABLE))
    return [{"row": index, **rows[index]} for index in indices[split]]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `advbench_hrr`. Metadata read: `advbench_csv`, `advbench_split`."""
    return as_test_split(_chosen(metadata))


def load_prefill(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `advbench_prefill`. Metadata read besides: see `prefilled`."""
    return as_test_split(prefilled(_chosen(metadata), metadata))


def load_visage(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `visage`. Metadata read besides: `requests`, `directions`, `points`, `reach`."""
    return as_test_split(with_sweep(_chosen(metadata)[: metadata.get("requests")], metadata))


def _chosen(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    judges_override()  # a mistake in it must not show only after hours of generation
    return advbench_rows(str(metadata.get("advbench_split", "evaluation")), metadata.get("advbench_csv"))


@lru_cache(maxsize=2)
def _all_rows(path: Path | None) -> list[dict[str, str]]:
    expected = committed("advbench")
    if path is None:
        rows = HUB.rows(("prompt", "target"))
        where, wanted, found = HUB.name, expected["rows_sha256"], rows_digest([r["prompt"], r["target"]] for r in rows)
    else:
        where, wanted, found = str(path), expected["sha256"], hashlib.sha256(path.read_bytes()).hexdigest()
        rows = read_goals(path, OTHERWISE)
    if found != wanted:
        raise InputError(
            f"{where} is not the AdvBench file that the committed split belongs to ({len(rows)} rows):\n"
            f"  sha256 expected {wanted}\n  sha256 found    {found}\n{OTHERWISE}"
        )
    return rows
