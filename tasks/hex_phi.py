"""HEx-PHI (Qi et al. 2310.03693): 300 harmful requests in ten categories. Gated, with its own terms; never contained.

Category 2 was withdrawn by its authors: 300 of the 330 requests that papers count are left.
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from .hub import HubData
from .judging import judges_override
from .sources import as_test_split, local_folder

__all__ = ["CATEGORIES", "hex_phi_rows", "load"]

HUB = HubData(
    "LLM-Tuning-Safety/HEx-PHI",
    "83128b46334b80cc567bd7a2caf7af11c5b0bab7",
    'Or give the folder with category_1.csv … category_11.csv as --metadata \'{"hex_phi_dir": "/path"}\' or in '
    "$SAFEBASIN_HEX_PHI_DIR.",
    gated=True,
)
CATEGORIES = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)
PER_CATEGORY = 30


def hex_phi_rows(source: str | Path | None = None) -> list[dict[str, Any]]:
    """All requests, in the order of categories and files.

    Args:
        source: folder with the CSV files; without it `$SAFEBASIN_HEX_PHI_DIR`, else the hub.

    Returns:
        Dicts with `row`, `category` and `prompt`.

    Raises:
        InputError: the data cannot be had, or a file does not hold 30 requests.
    """
    return [
        dict(row) for row in _all_rows(local_folder({"hex_phi_dir": source}, "hex_phi_dir", "SAFEBASIN_HEX_PHI_DIR"))
    ]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset` of `hex_phi_hrr`. Metadata read: `hex_phi_dir`."""
    judges_override()  # a mistake in it must not show only after hours of generation
    return as_test_split(hex_phi_rows(metadata.get("hex_phi_dir")))


@lru_cache(maxsize=2)
def _all_rows(folder: Path | None) -> list[dict[str, Any]]:
    found = [(category, prompt) for category in CATEGORIES for prompt in _category(category, folder)]
    return [{"row": row, "category": category, "prompt": prompt} for row, (category, prompt) in enumerate(found)]


def _category(category: int, folder: Path | None) -> list[str]:
    name = f"category_{category}.csv"
    path = HUB.file(name) if folder is None else folder / name
    if not path.is_file():
        raise InputError(f"There is no file {path}. {HUB.otherwise}")
    with path.open(newline="", encoding="utf-8") as file:
        prompts = [line[0].strip() for line in csv.reader(file) if line]  # the files have one column and no header
    if len(prompts) != PER_CATEGORY or not all(prompts):
        raise InputError(
            f"{path} has {len(prompts)} requests, {prompts.count('')} of them empty; HEx-PHI has {PER_CATEGORY} in "
            f"each category, without a header. {HUB.otherwise}"
        )
    return prompts
