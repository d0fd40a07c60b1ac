"""The five sets that a restoration works on, and how they are split off what the user gives."""

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, SupportsFloat

from ...errors import InputError, several
from ..config.settings import RestoreConfig

__all__ = ["RestorationData", "split", "split_forget", "split_retain"]

Rows = Sequence[Mapping[str, Any]]
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class RestorationData:
    """Rows by role. Forget rows: `prompt` and, optionally, `target`. Retain rows: `prompt` and `response`.

    Either may have `before`: the turns before the prompt, such as a system message, each with `role` and `content`.
    """

    forget: Rows
    """What the updates work on: the base's refusals of them are brought back, or their loss is raised."""
    curvature_forget: Rows
    """Harmful prompts that no update works on: they tell when it is done, and with pairs they probe curvature."""
    retain_1: Rows
    """Probes curvature."""
    retain_2: Rows
    """Probes curvature."""
    retain_check: Rows
    """Held out: its loss may not rise by more than epsilon."""

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            _check_columns(getattr(self, name), name, with_response=name.startswith("retain"))
        harmful = {_key(row) for row in (*self.forget, *self.curvature_forget)}
        both = [row for row in (*self.retain_1, *self.retain_2, *self.retain_check) if _key(row) in harmful]
        if both:
            raise InputError(
                f"{len(both)} prompts are in the forget and in the retain rows, such as '{both[0]['prompt'][:80]}'. "
                "A loss cannot be raised and kept at once: remove them from one of the two."
            )

    @property
    def safety_examples(self) -> int:
        """Number of distinct harmful prompts used."""
        return len({_key(row) for row in (*self.forget, *self.curvature_forget)})


def _key(row: Mapping[str, Any]) -> str:
    return " ".join(str(row["prompt"]).split()).lower()


def present(rows: Rows) -> Rows:
    """The rows without what is None or NaN in them, as a table writes what is absent."""
    if isinstance(rows, str | Mapping):
        return rows
    return [
        {name: value for name, value in row.items() if not _absent(value)} if isinstance(row, Mapping) else row
        for row in rows
    ]


def _absent(value: Any) -> bool:
    """Whether a cell is one of what Python, numpy and pandas put where there is nothing."""
    return (
        value is None
        or type(value).__name__ in ("NAType", "NaTType")
        or (isinstance(value, SupportsFloat) and isnan(value))
    )


def _check_columns(rows: Rows, name: str, with_response: bool) -> None:
    if isinstance(rows, str | Mapping) or not len(rows):
        raise InputError(f"The {name} set is empty or no list of rows. Give at least one row.")
    wanted = ("prompt", "response") if with_response else ("prompt",)
    faults = [
        f"Row {number} of the {name} set needs {problem}."
        for number, row in enumerate(rows)
        if (problem := _problem(row, wanted))
    ]
    if faults:
        raise InputError(several("rows cannot be used", faults))


def _problem(row: Any, wanted: Sequence[str]) -> str:
    """What a row needs; empty where it is sound."""
    if not isinstance(row, Mapping):
        return f"text in column {wanted[0]}; it has {repr(row)[:60]}"
    for column in wanted:
        if not isinstance(row.get(column), str) or not row[column].strip():
            return f"text in column {column}; it has {sorted(row)}"
    for column in ("target", "refusal"):
        if row.get(column) is not None and not isinstance(row[column], str):
            return f"text or None in column {column}; it has {row[column]!r}"
    before = row.get("before") or ()
    for turn in before if isinstance(before, Sequence) and not isinstance(before, str) else (before,):
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            return f"turns with a role ({', '.join(ROLES)}) and text as content in column before; it has {turn!r}"
    return ""


def _shuffled(rows: Rows, seed: int, what: str) -> list[Mapping[str, Any]]:
    order = list(rows)
    random.Random(f"{seed} {what}").shuffle(order)
    return order


def split(
    forget: Rows, retain: Rows, retain_check: Rows | None, curvature_forget: Rows | None, config: RestoreConfig
) -> RestorationData:
    """Splits off, by `config.seed`, what is not given.

    `curvature_forget` becomes what `config.forget_size` rows of `forget` leave (half of it where that would be fewer
    than as many again, with a warning); `retain_check` a quarter of `retain`, at most `config.check_size` rows;
    the rest of `retain` is halved. A warning tells of prompts that are in two sets of the same side.

    Raises:
        InputError: a set is empty, lacks a column, is too small to split, or shares prompts with its opposite.
    """
    forget, retain = present(forget), present(retain)
    _check_columns(forget, "forget", with_response=False)
    _check_columns(retain, "retain", with_response=True)
    return RestorationData(
        **split_forget(forget, curvature_forget, config), **split_retain(retain, retain_check, config)
    )


def split_forget(forget: Rows, curvature_forget: Rows | None, config: RestoreConfig) -> dict[str, Rows]:
    """`forget` and `curvature_forget` of `split`.

    Raises:
        InputError: as `split`.
    """
    forget = present(forget)
    curvature_forget = None if curvature_forget is None else present(curvature_forget)
    _check_columns(forget, "forget", with_response=False)
    if curvature_forget is None:
        forget, curvature_forget = _split_forget(forget, config)
    _check_columns(curvature_forget, "curvature_forget", with_response=False)
    _warn_of_overlap(forget, curvature_forget, "forget", "the curvature_forget", "curvature is fitted to their loss")
    return {"forget": forget, "curvature_forget": curvature_forget}


def split_retain(retain: Rows, retain_check: Rows | None, config: RestoreConfig) -> dict[str, Rows]:
    """`retain_1`, `retain_2` and `retain_check` of `split`.

    Raises:
        InputError: as `split`.
    """
    retain = present(retain)
    retain_check = None if retain_check is None else present(retain_check)
    _check_columns(retain, "retain", with_response=True)
    kept = _shuffled(retain, config.seed, "retain")
    if retain_check is None:
        held_out = max(1, min(config.check_size, len(kept) // 4))
        retain_check, kept = kept[:held_out], kept[held_out:]
    if len(kept) < 2:
        raise InputError(f"The retain set has {len(retain)} rows, too few to split. Give at least 3, better hundreds.")
    _check_columns(retain_check, "retain_check", with_response=True)
    middle = (len(kept) + 1) // 2
    _warn_of_overlap(retain_check, kept, "retain_check", "the other retain", "epsilon is not enforced on held-out rows")
    return {"retain_1": kept[:middle], "retain_2": kept[middle:], "retain_check": retain_check}


def _warn_of_overlap(rows: Rows, others: Rows, name: str, other: str, so: str) -> None:
    known = {_key(row) for row in others}
    both = [row for row in rows if _key(row) in known]
    if both:
        warnings.warn(
            f"{len(both)} of {len(rows)} {name} prompts are among {other} rows too, such as "
            f"'{both[0]['prompt'][:80]}': {so}. Remove them from one of the two.",
            stacklevel=4,
        )


def _split_forget(forget: Rows, config: RestoreConfig) -> tuple[Rows, Rows]:
    if len(forget) < 2:
        raise InputError("The forget set has 1 row, too few to split. Give at least 2, or curvature_forget.")
    order, size = _shuffled(forget, config.seed, "forget"), config.forget_size
    if len(order) < 2 * size:
        size = len(order) // 2
        warnings.warn(
            f"{len(order)} forget rows are few: {size} are ascended (not {config.forget_size}), the others probe "
            "curvature. Give more rows, or curvature_forget.",
            stacklevel=4,
        )
    return order[:size], order[size:]
