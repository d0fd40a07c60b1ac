"""Public sets of requests that are one file each: HarmBench, JailbreakBench, StrongREJECT, OR-Bench and SORRY-Bench.

Loaded, never contained. A request that is one of AdvBench's safety rows, on which methods train, is left out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..registry import suggest
from .hub import HubData
from .judging import judges_override
from .overlap import normal, request_digest
from .sources import as_test_split, local_file, local_folder, read_records
from .splits import committed

__all__ = ["OVERLAPS", "SETS", "RequestSet", "load", "requests"]

OVERLAPS = ("leave_out", "keep")
"""What may become of requests that are AdvBench's safety rows too."""


@dataclass(frozen=True)
class RequestSet:
    """What is known of one set."""

    title: str
    hub: HubData
    file: str
    """In the hub's repository."""
    key: str
    """Names a local copy in metadata and in `data` of a config: the file or, if it ends in `_dir`, its folder."""
    columns: tuple[str, ...]
    """The request's column, as the original and the hub's copy call it."""
    categories: tuple[str, ...]
    """The same of the category."""
    counts: tuple[int, ...]
    """How many requests it may have: one number for each of its versions."""
    only: tuple[str, str] | None = None
    """A column, and its value in the rows that are asked; where there is no such column, all are."""
    turns: bool = False
    """Whether a request is a list of one text."""
    digest: str | None = None
    """SHA-256 of its requests as `normal` leaves them, sorted, a line each; None where nobody could compute it."""

    @property
    def variable(self) -> str:
        """The environment variable that names a local copy."""
        return _variable(self.key)


def _variable(key: str) -> str:
    return f"SAFEBASIN_{key.upper()}"


def _otherwise(original: str, key: str) -> str:
    return f'Give {original}, as --metadata \'{{"{key}": "/path"}}\' or in ${_variable(key)}.'


def _jailbreakbench(split: str) -> RequestSet:
    return RequestSet(
        f"JailbreakBench's {split} behaviours",
        HubData(
            "JailbreakBench/JBB-Behaviors",
            "886acc352a31533ffbcf4ef22c744658688086fc",
            _otherwise("the folder with its harmful-behaviors.csv and benign-behaviors.csv", "jbb_dir"),
        ),
        f"data/{split}-behaviors.csv",
        "jbb_dir",
        ("Goal",),
        ("Category",),
        (100,),
    )


SETS: dict[str, RequestSet] = {
    "harmbench": RequestSet(
        "HarmBench's standard behaviours",
        HubData(
            "walledai/HarmBench",
            "a777536ffc60bc8317b06380da5b2acf8d6491fd",
            _otherwise(
                "harmbench_behaviors_text_all.csv of the repository centerforaisafety/HarmBench", "harmbench_csv"
            ),
            gated=True,
        ),
        "standard/train-00000-of-00001.parquet",
        "harmbench_csv",
        ("Behavior", "prompt"),
        ("SemanticCategory", "category"),
        (200,),
        only=("FunctionalCategory", "standard"),
        digest="834d725a19786e538261cc82fbd1955d433cad8cf9a76de39643672d067e0e0f",
    ),
    "jbb_harmful": _jailbreakbench("harmful"),
    "jbb_benign": _jailbreakbench("benign"),
    "strongreject": RequestSet(
        "StrongREJECT",
        HubData(
            "walledai/StrongREJECT",
            "df54272b395ce9e584d2f8140519935425d8549f",
            _otherwise("strongreject_dataset.csv of alexandrasouly/strongreject on GitHub", "strongreject_csv"),
            gated=True,
        ),
        "data/train-00000-of-00001.parquet",
        "strongreject_csv",
        ("forbidden_prompt", "prompt"),
        ("category",),
        (313,),
        digest="c10f805743d9ec4c3eaff776b806ccac8eb4e9ef96e3a1c59be2c0db5abd8d83",
    ),
    "or_bench_hard": RequestSet(
        "OR-Bench-Hard-1K",
        HubData(
            "bench-llm/or-bench",
            "e36d8b80e81837c8a8f264bbb2a49f1b32c7e272",
            _otherwise("its or-bench-hard-1k.csv", "or_bench_csv"),
        ),
        "or-bench-hard-1k.csv",
        "or_bench_csv",
        ("prompt",),
        ("category",),
        (1319,),
    ),
    "sorry_bench": RequestSet(
        "SORRY-Bench's base requests",
        HubData(
            "sorry-bench/sorry-bench-202503",
            "612a4e1f45db8adf884fa62318ddf9fa1c6e75e9",
            _otherwise("its question.jsonl", "sorry_bench_jsonl"),
            gated=True,
        ),
        "question.jsonl",
        "sorry_bench_jsonl",
        ("turns",),
        ("category",),
        (440, 450),
        only=("prompt_style", "base"),
        turns=True,
    ),
}


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
    return as_test_split(requests(name, source, str(metadata.get("advbench_overlap", "leave_out"))))


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
    if empty := [row["row"] for row in rows if not row["prompt"]]:
        raise InputError(f"{where} has no request in rows {empty[:5]}. {otherwise}")
    if len(rows) not in given.counts:
        wanted = " or ".join(map(str, given.counts))
        raise InputError(f"{where} is not {given.title}: expected {wanted} requests, found {len(rows)}. {otherwise}")
    text = "\n".join(sorted(normal(row["prompt"]) for row in rows))
    if given.digest and (found := hashlib.sha256(text.encode()).hexdigest()) != given.digest:
        raise InputError(
            f"{where} has {len(rows)} requests that are not those of {given.title}:\n"
            f"  sha256 of them expected {given.digest}\n  sha256 of them found    {found}\n{otherwise}"
        )
    return rows


def _column(row: Mapping[str, Any], names: Sequence[str], where: str, otherwise: str) -> str:
    if found := [name for name in names if name in row]:
        return found[0]
    raise InputError(f"{where} has no column '{names[0]}'; it has {list(row)}. {otherwise}")


def _text(cell: Any, turns: bool) -> str:
    if turns:
        cell = cell[0] if isinstance(cell, list) and len(cell) == 1 else None
    return cell.strip() if isinstance(cell, str) else ""
