"""XSTest (Röttger et al. 2308.01263): 250 safe requests that sound unsafe, and 200 unsafe ones to contrast with."""

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .hub import HubData
from .judging import judges_override
from .sources import as_test_split, local_file, read_records

__all__ = ["load", "xstest_rows"]

HUB = HubData(
    "Paul/XSTest",
    "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
    'Give xstest_prompts.csv as --metadata \'{"xstest_csv": "/path"}\' or in $SAFEBASIN_XSTEST_CSV.',
)
COLUMNS = ("prompt", "type", "label")
COUNTS = {"safe": 250, "unsafe": 200}


def xstest_rows(label: str, source: str | Path | None = None) -> list[dict[str, Any]]:
    """The requests of one label.

    Args:
        label: `safe` (250) or `unsafe` (200).
        source: the CSV; without it `$SAFEBASIN_XSTEST_CSV`, else the hub.

    Returns:
        Dicts with `row` (index in the file), `prompt` and `type`.

    Raises:
        InputError: unknown label; the data cannot be had, or are not 250 safe and 200 unsafe requests.
    """
    if label not in COUNTS:
        raise InputError(f"XSTest has no label '{label}'. {suggest(label, COUNTS)}")
    rows = _all_rows(local_file({"xstest_csv": source}, "xstest_csv", "SAFEBASIN_XSTEST_CSV"))
    return [
        {"row": index, "prompt": row["prompt"], "type": row["type"]}
        for index, row in enumerate(rows)
        if row["label"] == label
    ]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of both tasks. Metadata read: `xstest_csv`, `xstest_label`."""
    judges_override()  # a mistake in it must not show only after hours of generation
    return as_test_split(xstest_rows(str(metadata["xstest_label"]), metadata.get("xstest_csv")))


@lru_cache(maxsize=2)
def _all_rows(path: Path | None) -> list[dict[str, str]]:
    rows = HUB.rows(COLUMNS) if path is None else read_records(path, COLUMNS, HUB.otherwise)
    found = dict(Counter(str(row["label"]) for row in rows))
    if found != COUNTS:
        raise InputError(
            f"{path or HUB.name} is not XSTest: expected {COUNTS} rows by label, found {found}. {HUB.otherwise}"
        )
    return rows
