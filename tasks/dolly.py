"""Dolly-15k, the fine-tuning task: seeded parts, disjoint because each row belongs to exactly one (A-29).

The data set has no official test split. Rows without a response, rows longer than `MAX_CHARACTERS` and repeated
requests are left out; the others are put in the order of sha256(seed, request, response), and the parts are cut from
the front of that order, so that which part a row falls into depends on nothing but the rows and the seed.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .sources import as_test_split, hub_rows, local_file
from .splits import order

__all__ = ["PARTS", "dolly_rows", "load"]

HUB_ID = "databricks/databricks-dolly-15k"
HUB_REVISION = "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a"
JSONL_VARIABLE = "SAFEBASIN_DOLLY_JSONL"
COLUMNS = ("instruction", "context", "response")
OTHERWISE = f'Give databricks-dolly-15k.jsonl as --metadata \'{{"dolly_jsonl": "/path"}}\' or in ${JSONL_VARIABLE}.'

SEED = 2025
MAX_CHARACTERS = 4000
"""Of request and response together: about 1,000 tokens, so that no context is cut at a window of 2,048."""
PARTS = {"test": 200, "retain_check": 200, "retain_1": 512, "retain_2": 512}
"""Rows of each part, cut in this order; `train` is the rest."""


def dolly_rows(split: str, source: str | Path | None = None) -> list[dict[str, str]]:
    """The rows of one part.

    Args:
        split: `test` (evaluation loss), `retain_1` and `retain_2` (curvature and retain batches), `retain_check` (the
            fixed set that the retain bound is checked on), or `train`.
        source: a JSONL file; without it `$SAFEBASIN_DOLLY_JSONL`, else the hub.

    Returns:
        Dicts with `prompt` (instruction, then after an empty line the context if there is one) and `response`.

    Raises:
        InputError: unknown split; the data cannot be had, or are too few.
    """
    if split != "train" and split not in PARTS:
        raise InputError(f"Dolly has no split '{split}'. {suggest(split, [*PARTS, 'train'])}")
    rows = _ordered_rows(local_file({"dolly_jsonl": source}, "dolly_jsonl", JSONL_VARIABLE))
    start = 0
    for name, size in PARTS.items():
        if name == split:
            return [dict(row) for row in rows[start : start + size]]
        start += size
    return [dict(row) for row in rows[start:]]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `dolly_eval_loss`. Metadata read: `dolly_jsonl`."""
    return as_test_split(dolly_rows("test", metadata.get("dolly_jsonl")))


@lru_cache(maxsize=2)
def _ordered_rows(path: Path | None) -> list[dict[str, str]]:
    raw = hub_rows(HUB_ID, HUB_REVISION, COLUMNS, OTHERWISE) if path is None else _read_jsonl(path)
    rows: dict[str, dict[str, str]] = {}
    for row in (_conversation(record) for record in raw):
        if row["prompt"] and row["response"] and len(row["prompt"]) + len(row["response"]) <= MAX_CHARACTERS:
            rows.setdefault(" ".join(row["prompt"].lower().split()), row)
    needed = sum(PARTS.values()) + 1
    if len(rows) < needed:
        raise InputError(f"{path or HUB_ID} has {len(rows)} usable rows; its parts need at least {needed}. {OTHERWISE}")
    return sorted(rows.values(), key=lambda row: order(SEED, "dolly", f"{row['prompt']}\n{row['response']}"))


def _conversation(record: dict[str, Any]) -> dict[str, str]:
    instruction, context, response = (str(record[column] or "").strip() for column in COLUMNS)
    return {"prompt": f"{instruction}\n\n{context}" if context else instruction, "response": response}


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}).") from error
        missing = [column for column in COLUMNS if not isinstance(row, dict) or column not in row]
        if missing:
            raise InputError(f"{path}, line {number}: no field {missing}. {OTHERWISE}")
        rows.append(row)
    return rows
