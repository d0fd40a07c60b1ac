"""All verdicts of a run by row and judge, from its store: nothing is judged again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from ...errors import InputError
from ...judges.base import Exchange
from ...results.judged import JudgedRow, JudgedTask, JudgeNote, numbered
from ...results.method_result import ROLES
from ...results.records import Verdict
from ..plan import Cell, Plan, Row
from ..store.digests import digest_of
from ..store.store import JudgeRecord, Store
from .folder import name_of
from .judge import judged_as
from .worlds import world_in

__all__ = ["finished", "judged_row", "judged_rows", "notes_of", "with_verdicts"]

_SOME = 500
"""Responses that are in memory together."""


def judged_rows(plan: Plan, folder: Path, store: Store) -> list[JudgedRow]:
    """Every row of the plan with its finished tasks.

    Raises:
        InputError: something finished is not judged by all judges yet.
    """
    return [judged_row(plan, folder, store, row) for row in plan.rows]


def judged_row(plan: Plan, folder: Path, store: Store, row: Row) -> JudgedRow:
    """One row with those of its tasks that are finished and judged; sweeps are left out.

    Raises:
        InputError: something of it is not judged by all judges yet.
    """
    judges = store.judges(judged_as(plan.digest, world_in(folder, row.model)))
    cells = [(cell, key) for cell, key in finished(plan, store, row).items() if cell.role in ROLES]
    tasks = [_task(store, cell, key, judges) for cell, key in cells]
    return JudgedRow(row.model, row.label, row.seed, notes_of(judges), tasks)


def finished(plan: Plan, store: Store, row: Row) -> dict[Cell, str]:
    """The finished cells of a row, with their keys in the store."""
    assigned = store.assignments(plan.digest)
    cells = [cell for cell in plan.cells if cell.row == row]
    return {cell: key for cell in cells if (key := assigned.get(name_of(cell), (None, ""))[0])}


def notes_of(judges: Sequence[JudgeRecord]) -> list[JudgeNote]:
    """The judges as tables call them: those of one name are numbered."""
    names = numbered([judge.name for judge in judges])
    return [JudgeNote(name, judge.decides) for name, judge in zip(names, judges, strict=True)]


def with_verdicts(
    store: Store, cell: str, judges: Sequence[JudgeRecord]
) -> Iterator[tuple[dict[int, Exchange], list[dict[Exchange, Verdict]]]]:
    """The responses of a cell by document, some at a time, with what each judge is known to say of them."""
    samples = store.each_sample(cell)
    while some := {sample.doc_id: Exchange(sample.prompt, sample.response) for sample in islice(samples, _SOME)}:
        yield some, [store.verdicts(judge.identity, [*some.values()]) for judge in judges]


def _task(store: Store, cell: Cell, key: str, judges: Sequence[JudgeRecord]) -> JudgedTask:
    verdicts: dict[int, tuple[Verdict, ...]] = {}
    units: dict[int, str] = {}
    alike: dict[tuple[Verdict, ...], tuple[Verdict, ...]] = {}
    not_judged = 0
    for exchanges, known in with_verdicts(store, key, judges):
        for doc_id, exchange in exchanges.items():
            said = tuple(replace(found[exchange], raw="") for found in known if exchange in found)
            not_judged += len(said) < len(judges)
            verdicts[doc_id] = alike.setdefault(said, said)
            units[doc_id] = digest_of([*exchange])
    if not_judged:
        raise InputError(
            f"{name_of(cell)}: {not_judged} responses are not judged by all judges yet. Run `safebasin run` again."
        )
    return JudgedTask(cell.task, cell.role, verdicts, units)
