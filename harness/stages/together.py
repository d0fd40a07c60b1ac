"""Several runs as one leaderboard: runs that measured alike, whatever models, methods and seeds each of them has."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ...errors import InputError
from ..config.model import NOT_MEASURED
from ..config.published import union
from ..plan import Cell, Plan, Row
from .report_page import OpenRun

__all__ = ["different", "put_together"]

T = TypeVar("T")
_MAY_DIFFER = {"models", "methods", "seeds", *NOT_MEASURED}


def put_together(plans: Sequence[Plan], folders: Sequence[Path]) -> Plan:
    """The plan of all runs: each model, method and seed once, and the published numbers of all (`published.union`).

    Raises:
        InputError: the configs differ in what decides how rows are made and measured, or give one name to two methods
            or to two models.
    """
    settings = [plan.config.model_dump(mode="json", exclude=_MAY_DIFFER) for plan in plans]
    for folder, each in zip(folders, settings, strict=True):
        if differ := sorted(key for key in each if each[key] != settings[0][key]):
            raise InputError(
                f"{folder} and {folders[0]} are of different configs: {', '.join(differ)} differ. Only runs that "
                "differ in nothing but models, methods and seeds can be reported together."
            )
    config = plans[0].config.model_copy(
        update={
            "models": tuple(_once((model.id, model) for plan in plans for model in plan.config.models)),
            "methods": tuple(
                _once(pair for plan in plans for pair in zip(plan.config.labels, plan.config.methods, strict=True))
            ),
            "seeds": tuple(dict.fromkeys(seed for plan in plans for seed in plan.config.seeds)),
            "published": union([plan.config.published for plan in plans]),
        }
    )
    steps = {step.id: step for plan in plans for step in plan.builds}
    cells = tuple(dict.fromkeys(cell for plan in plans for cell in plan.cells))
    return replace(plans[0], config=config, builds=tuple(steps.values()), cells=cells)


def _once(named: Iterable[tuple[str, T]]) -> list[T]:
    found: dict[str, T] = {}
    for name, one in named:
        if found.setdefault(name, one) != one:
            raise InputError(f"Two of these runs mean different things by '{name}'. Give one of them another label.")
    return [*found.values()]


def different(runs: Sequence[OpenRun]) -> list[OpenRun]:
    """The runs, each without the rows that an earlier one has.

    Raises:
        InputError: two runs have a row of one name with other answers.
    """
    taken: dict[Row, tuple[OpenRun, dict[Cell, str]]] = {}
    found = []
    for run in runs:
        own = {row: {cell: key for cell, key in run.keys.items() if cell.row == row} for row in run.plan.rows}
        for row in (row for row in own if row in taken):
            if own[row] and taken[row][1] and own[row] != taken[row][1]:
                raise InputError(
                    f"{run.folder} and {taken[row][0].folder} both have the row {row.model} / {row.label} / seed "
                    f"{row.seed}, with other answers: they are of other weights, code or data (`safebasin run CONFIG "
                    "--explain-key` tells which). Report one of them alone."
                )
        cells = tuple(cell for cell in run.plan.cells if cell.row not in taken)
        taken |= {row: (run, keys) for row, keys in own.items() if row not in taken}
        if cells:
            found.append(replace(run, plan=replace(run.plan, cells=cells)))
    return found
