"""All verdicts of a run by row and judge, from its store: nothing is judged again."""

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...judges.base import Exchange
from ...results.judged import JudgedRow, JudgedTask, JudgeNote, numbered
from ...results.method_result import ROLES
from ..plan import Cell, Plan, Row
from ..store.digests import digest_of
from ..store.store import JudgeRecord, Store
from .folder import name_of
from .judge import judged_as
from .worlds import world_in

__all__ = ["finished", "judged_row", "judged_rows", "notes_of"]


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


def _task(store: Store, cell: Cell, key: str, judges: Sequence[JudgeRecord]) -> JudgedTask:
    samples = store.samples(key)
    exchanges = [Exchange(sample.prompt, sample.response) for sample in samples]
    known = [store.verdicts(judge.identity, exchanges) for judge in judges]
    verdicts = {
        sample.doc_id: [found[exchange] for found in known if exchange in found]
        for sample, exchange in zip(samples, exchanges, strict=True)
    }
    if not_judged := [doc_id for doc_id, found in verdicts.items() if len(found) < len(judges)]:
        raise InputError(
            f"{name_of(cell)}: {len(not_judged)} responses are not judged by all judges yet. Run `safebasin run` again."
        )
    units = {s.doc_id: digest_of([*exchange]) for s, exchange in zip(samples, exchanges, strict=True)}
    return JudgedTask(cell.task, cell.role, verdicts, units)
