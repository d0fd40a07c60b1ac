"""Instruction data sets, to fine-tune on and to measure loss on: seeded parts, disjoint by construction (A-29).

They have no official test split. Rows without a response, rows longer than `MAX_CHARACTERS` and repeated requests are
left out; the others are put in the order of sha256(seed, name, request, response), and the parts are cut from the
front of that order, so that which part a row falls into depends on nothing but the rows and the seed.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .hub import HubData
from .sources import as_test_split, local_file, read_records
from .splits import order

__all__ = ["PARTS", "Instructions"]

SEED = 2025
MAX_CHARACTERS = 4000
"""Of request and response together: about 1,000 tokens, so that no context is cut at a window of 2,048."""
PARTS = {"test": 200, "retain_check": 200, "retain_1": 512, "retain_2": 512}
"""Rows of each part, cut in this order; `train` is the rest."""


@dataclass(frozen=True)
class Instructions:
    """One such data set."""

    name: str
    hub: HubData
    columns: tuple[str, str, str]
    """Its columns for the instruction, the context (may be empty) and the response."""
    key: str
    """The metadata key of a local copy."""
    variable: str
    """The environment variable of a local copy."""

    def rows(self, split: str, source: str | Path | None = None) -> list[dict[str, str]]:
        """The rows of one part.

        Args:
            split: `test` (evaluation loss), `retain_1` and `retain_2` (curvature and retain batches), `retain_check`
                (the fixed set that the retain bound is checked on), or `train`.
            source: a local file; without it the environment variable's, else the hub.

        Returns:
            Dicts with `prompt` (instruction, then after an empty line the context if there is one) and `response`.

        Raises:
            InputError: unknown split; the data cannot be had, or are too few.
        """
        if split != "train" and split not in PARTS:
            raise InputError(f"{self.name} has no split '{split}'. {suggest(split, [*PARTS, 'train'])}")
        rows = _ordered_rows(self, local_file({self.key: source}, self.key, self.variable))
        start = 0
        for name, size in PARTS.items():
            if name == split:
                return [dict(row) for row in rows[start : start + size]]
            start += size
        return [dict(row) for row in rows[start:]]

    def load(self, **metadata: Any) -> dict[str, Any]:
        """lm-eval `custom_dataset` of the loss on the test part. Metadata read: `key`."""
        return as_test_split(self.rows("test", metadata.get(self.key)))


@lru_cache(maxsize=4)
def _ordered_rows(data: Instructions, path: Path | None) -> list[dict[str, str]]:
    raw = data.hub.rows(data.columns) if path is None else read_records(path, data.columns, data.hub.otherwise)
    rows: dict[str, dict[str, str]] = {}
    for row in (_conversation(record, data.columns) for record in raw):
        if row["prompt"] and row["response"] and len(row["prompt"]) + len(row["response"]) <= MAX_CHARACTERS:
            rows.setdefault(" ".join(row["prompt"].lower().split()), row)
    needed = sum(PARTS.values()) + 1
    if len(rows) < needed:
        where = path or data.hub.name
        raise InputError(f"{where} has {len(rows)} usable rows; its parts need at least {needed}. {data.hub.otherwise}")
    return sorted(rows.values(), key=lambda row: order(SEED, data.name, f"{row['prompt']}\n{row['response']}"))


def _conversation(record: dict[str, Any], columns: tuple[str, str, str]) -> dict[str, str]:
    instruction, context, response = (str(record[column] or "").strip() for column in columns)
    return {"prompt": f"{instruction}\n\n{context}" if context else instruction, "response": response}
