"""Loads the sets of `request_sets`, without the requests that are AdvBench's safety rows: methods train on those."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .judging import judges_override
from .overlap import normal, request_digest
from .request_sets import SETS, RequestSet
from .sources import as_test_split, local_file, local_folder, read_records
from .splits import committed

__all__ = ["OVERLAPS", "load", "requests"]

OVERLAPS = ("leave_out", "keep")
"""What may become of requests that are AdvBench's safety rows too."""


def requests(name: str, source: str | Path | None = None, overlap: str = "leave_out") -> list[dict[str, Any]]:
    """The requests of one set.

    Args:
        name: one of `SETS`.
        source: its local copy; without it the set's environment variable, else the hub.
        overlap: one of `OVERLAPS`.

    Returns:
        Dicts with `row` (index in the file), `category` and `prompt`.

    Raises:
        InputError: unknown name or overlap; the data cannot be had, or are not the set.
    """
    for given, known, what in ((name, SETS, "set of requests"), (overlap, OVERLAPS, "advbench_overlap")):
        if given not in known:
            raise InputError(f"There is no {what} '{given}'. {suggest(given, known)}")
    found = _all_rows(SETS[name], _local(SETS[name], source))
    trained = set(committed("advbench")["safety_requests"]) if overlap == "leave_out" else set()
    return [dict(row) for row in found if request_digest(row["prompt"]) not in trained]


def load(**metadata: Any) -> dict[str, Any]:
    """lm-eval `custom_dataset`. Metadata read: `request_set`, `advbench_overlap`, and the set's `key`."""
    judges_override()  # a mistake in it must not show only after hours of generation
    name = str(metadata["request_set"])
    source = metadata.get(SETS[name].key) if name in SETS else None
    return as_test_split(requests(name, source, str(metadata.get("advbench_overlap", "keep"))))


def _local(given: RequestSet, source: str | Path | None) -> Path | None:
    if not given.key.endswith("_dir"):
        return local_file({given.key: source}, given.key, given.variable)
    folder = local_folder({given.key: source}, given.key, given.variable)
    return folder and folder / Path(given.file).name


@lru_cache(maxsize=len(SETS))
def _all_rows(given: RequestSet, path: Path | None) -> Sequence[Mapping[str, Any]]:
    where, otherwise = str(path or given.hub.name), given.hub.otherwise
    records = read_records(path or given.hub.file(given.file), (), otherwise)
    prompt, category = (_column(records[0], names, where, otherwise) for names in (given.columns, given.categories))
    column, value = given.only if given.only and given.only[0] in records[0] else (None, None)
    rows = [
        {"row": index, "category": str(record[category]), "prompt": _text(record[prompt], given.turns)}
        for index, record in enumerate(records)
        if column is None or record[column] == value
    ]
    _check(rows, given, where)
    return rows


def _check(rows: Sequence[Mapping[str, Any]], given: RequestSet, where: str) -> None:
    if empty := [row["row"] for row in rows if not row["prompt"]]:
        raise InputError(f"{where} has no request in rows {empty[:5]}. {given.hub.otherwise}")
    if len(rows) not in given.counts:
        wanted = " or ".join(map(str, given.counts))
        raise InputError(
            f"{where} is not {given.title}: expected {wanted} requests, found {len(rows)}. {given.hub.otherwise}"
        )
    text = "\n".join(sorted(normal(row["prompt"]) for row in rows))
    if given.digest and (found := hashlib.sha256(text.encode()).hexdigest()) != given.digest:
        raise InputError(
            f"{where} has {len(rows)} requests that are not those of {given.title}:\n"
            f"  sha256 of them expected {given.digest}\n  sha256 of them found    {found}\n{given.hub.otherwise}"
        )


def _column(row: Mapping[str, Any], names: Sequence[str], where: str, otherwise: str) -> str:
    if found := [name for name in names if name in row]:
        return found[0]
    raise InputError(f"{where} has no column '{names[0]}'; it has {list(row)}. {otherwise}")


def _text(cell: Any, turns: bool) -> str:
    if turns:
        cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else None
    return cell.strip() if isinstance(cell, str) else ""
