"""Do the published numbers of a config exist, and does the leaderboard have places for them?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ...errors import InputError
from ...registry import suggest
from ...results.audit import SECONDS, Number, read_numbers, table_path
from ...results.beside import Places
from ...tasks.catalog import tasks
from .faults import Fault
from .model import RunConfig
from .published import PublishedConfig

__all__ = ["check_published"]

_ALWAYS = ("minutes", "peak_gb", "safety_examples")
"""Columns of every leaderboard."""
_OF_ROLE = {
    "hrr": ("hrr", "refusal_rate", "grade"),
    "prefill": ("prefill_asr",),
    "visage": ("visage",),
    "over_refusal": ("over_refusal",),
    "under_refusal": ("under_refusal",),
    "eval_loss": ("eval_loss",),
}
"""Role of a task -> its columns."""


def check_published(config: RunConfig) -> Iterator[Fault]:
    """Tables, groups, rows and columns that are there, and places that this run's leaderboard has."""
    known = {
        "models": [model.id for model in config.models],
        "rows": [*config.labels, *(f"{label}[epsilon={at:g}]" for label in config.labels for at in config.frontier)],
        "columns": _columns(config),
    }
    for name, table in config.published.items():
        at = f"published.{name}"
        for part, there in known.items():
            yield from _place_faults(f"{at}.{part}", getattr(table, part), there)
        try:
            numbers = read_numbers(table_path(name))
        except InputError as error:
            yield Fault(at, str(error))
        else:
            yield from _key_faults(at, table, numbers)
            yield from _unit_faults(at, table, numbers)


def _columns(config: RunConfig) -> list[str]:
    """Columns that the run's leaderboard will have a number in; none where the tasks cannot be read."""
    try:
        catalog = tasks(*map(Path, config.tasks.include))
    except InputError:  # check_tasks says so
        return []
    names = (*config.tasks.safety, *config.tasks.utility)
    roles = {name: catalog[name].role if name in catalog else "utility" for name in names}
    utility = [name for name, role in roles.items() if role == "utility"]
    return [*(column for role in roles.values() for column in _OF_ROLE.get(role, ())), *utility, *_ALWAYS]


def _place_faults(at: str, placed: Mapping[str, str], there: Sequence[str]) -> Iterator[Fault]:
    """Places that the leaderboard lacks."""
    what = {"models": "model", "rows": "row", "columns": "column"}[at.rpartition(".")[2]]
    for key, place in placed.items():
        if there and place not in there:
            text = f"'{place}' is no {what} of this run's leaderboard. {suggest(place, there)}"
            yield Fault(f"{at}.{key}", f"{text} Correct it, take it out, or run with published={{}}")


def _key_faults(at: str, table: PublishedConfig, numbers: Sequence[Number]) -> Iterator[Fault]:
    """Groups, rows and columns that the table lacks, or that have no number where the three meet."""
    kinds = {
        "models": ("group", {number.group for number in numbers}),
        "rows": ("row", {name for number in numbers for name in (number.row, f"{number.group}/{number.row}")}),
        "columns": ("column", {number.column for number in numbers}),
    }
    lacking = False
    for part, (what, there) in kinds.items():
        for key in getattr(table, part):
            if key not in there:
                lacking = True
                shown = _rows(numbers) if part == "rows" else there
                yield Fault(f"{at}.{part}", f"the table has no {what} '{key}'. {suggest(key, shown)}")
    if not lacking:
        yield from _idle(at, table, numbers)


def _rows(numbers: Iterable[Number]) -> set[str]:
    return {number.row for number in numbers}


def _idle(at: str, table: PublishedConfig, numbers: Sequence[Number]) -> Iterator[Fault]:
    """Keys that place no number, as the table has none there."""
    places = Places(table.models, table.rows, table.columns)
    placed = [(number, key) for number in numbers if (key := places.key(number))]
    used = {
        "models": {number.group for number, _ in placed},
        "rows": {key for _, key in placed},
        "columns": {number.column for number, _ in placed},
    }
    for part, keys in used.items():
        for key in getattr(table, part):
            if key not in keys:
                yield Fault(f"{at}.{part}", f"'{key}' has no number in the other groups, rows and columns named here")


def _unit_faults(at: str, table: PublishedConfig, numbers: Sequence[Number]) -> Iterator[Fault]:
    """Times stand beside times."""
    for key, column in table.columns.items():
        units = {number.unit for number in numbers if number.column == key}
        if wrong := sorted(unit for unit in units if (unit in SECONDS) != (column == "minutes")):
            text = f"'{key}' is in {wrong[0]}, which cannot stand beside {column}"
            yield Fault(f"{at}.columns", f"{text}; {', '.join(SECONDS)} go beside minutes, and nothing else does")
