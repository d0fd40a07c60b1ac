"""The named sets of rows that a geometry is taken on."""

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InputError
from ...registry import suggest
from ...tasks.rows.reader import read_columns, read_rows
from ..config.data import PROMPTS

__all__ = ["KNOWN", "SANDBOX_SETS", "named_columns", "named_sources", "rows_of_sets"]

Rows = list[dict[str, Any]]
SANDBOX_SETS = {
    "harmful": "harmful_test",
    "task": "task_test",
    "dual_use": "dual_use_test",
    "playful": "playful_test",
    "facts": "facts_test",
    "arithmetic": "arithmetic_test",
}
"""Name of a set -> split of a sandbox world; what a sandbox base is measured on by default."""


def _dolly() -> Rows:
    from ...tasks.dolly import dolly_rows

    return [dict(row) for row in dolly_rows("test")]


def _alpaca() -> Rows:
    from ...tasks.alpaca import alpaca_rows

    return [dict(row) for row in alpaca_rows("test")]


def _advbench() -> Rows:
    from ...tasks.advbench import advbench_rows

    return advbench_rows("evaluation")


def _hex_phi() -> Rows:
    from ...tasks.hex_phi import hex_phi_rows

    return hex_phi_rows()


KNOWN: dict[str, Callable[[], Rows]] = {
    "dolly": _dolly,
    "databricks/databricks-dolly-15k": _dolly,
    "alpaca": _alpaca,
    "tatsu-lab/alpaca": _alpaca,
    "advbench": _advbench,
    "walledai/AdvBench": _advbench,
    "hex_phi": _hex_phi,
    "LLM-Tuning-Safety/HEx-PHI": _hex_phi,
}
"""Data sets that the tasks know, by name and by hub id: held-out rows, on the commit that the tasks use."""


def named_sources(
    texts: Sequence[str], option: str = "--data", form: str = "NAME=SOURCE, for example harmful=requests.csv"
) -> dict[str, str]:
    """Reads `harmful=FILE` of each text.

    Args:
        texts: as they are on the command line.
        option: whose they are, and its `form`; for errors.
        form: see there.

    Raises:
        InputError: one is of another form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (equals and name.strip() and source.strip()):
            raise InputError(f"{option} '{text}' is not of the form {form}.")
        if name.strip() in found:
            raise InputError(f"{option} names '{name.strip()}' twice. Give each a name of its own.")
        found[name.strip()] = source.strip()
    return found


def named_columns(texts: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Reads `harmful.prompt=request,task.response=answer` of each text: set -> role -> column.

    Raises:
        InputError: one is of another form, or names an unknown set or role.
    """
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for text in (part for given in texts for part in given.split(",")):
        name, dot, rest = text.strip().partition(".")
        if not dot or name not in found:
            raise InputError(
                f"--columns '{text.strip()}' is not of the form SET.ROLE=COLUMN, SET one of {', '.join(names)}."
            )
        found[name] |= read_columns(rest)
    return found


def rows_of_sets(
    sources: dict[str, str], columns: dict[str, dict[str, str]], limit: int, world: int | None
) -> tuple[dict[str, Rows], list[str]]:
    """The first rows of each set, and a line on how each was read.

    Args:
        sources: name of a set -> `KNOWN` name, `sandbox/SPLIT`, file, or `owner/name:split` on the hub; empty for the
            sets of a sandbox base.
        columns: what columns are, by set.
        limit: rows of each set, at most.
        world: of the base model; None where it is of no sandbox world.

    Raises:
        InputError: there is no source, or the rows of one cannot be had.
    """
    if not sources:
        if world is None:
            raise InputError(
                "--data is missing: only a sandbox model has rows of its own. Give sets by name, for example "
                "--data harmful=requests.csv --data task=rows.jsonl; see docs/geometry.md."
            )
        sources = {name: f"sandbox/{split}" for name, split in SANDBOX_SETS.items()}
    rows, said = {}, []
    for name, source in sources.items():
        found, how = _read(source, columns.get(name, {}), world or 0)
        rows[name] = found[:limit]
        said.append(f"{name}: {how}; {len(rows[name])} taken")
    return rows, said


def _read(source: str, columns: dict[str, str], world: int) -> tuple[Rows, str]:
    if source in KNOWN:
        found = KNOWN[source]()
        return found, f"{source}: {len(found)} rows"
    if source.startswith("sandbox/"):
        return _of_sandbox(source.removeprefix("sandbox/"), world), f"{source} of world {world}"
    read = read_rows(source, PROMPTS, columns)
    return read.rows, read.said


def _of_sandbox(split: str, world: int) -> Rows:
    """Rows of a split; of innocent requests the answer to give stands under `target` there."""
    from ...tasks.sandbox.world import SPLITS
    from ...tasks.sandbox.world import rows as world_rows

    if split not in SPLITS:
        raise InputError(f"The sandbox has no split '{split}'. {suggest(split, SPLITS)}")
    named = {"target": "response"} if split.startswith("dual") else {}
    kept = ("prompt", "response", "target")
    return [{named.get(key, key): row[key] for key in kept if key in row} for row in world_rows(split, world)]
