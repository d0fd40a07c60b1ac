"""Drift as each judge sees it, and in each of its hazard categories: from the store, nothing is judged again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...results.drift import COLUMNS, drift_table
from ...results.judged import FACETS, JudgedRow, JudgedTask
from ...results.method_result import ROLES, MethodResult, Sample
from ...results.records import Outcome
from ..plan import Plan, Row
from ..store.store import Store
from .folder import load_plan, name_of, read_store
from .judged import finished, judged_row
from .replicas import check_against_manifest, model_digest_of, preset_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["drifts"]


@dataclass(frozen=True)
class _Answered:
    """What one row answered, as all judges see it."""

    result: MethodResult
    """Without its responses."""
    judged: JudgedRow


def drifts(folder: Path, tuned: str = "lora", store_path: Path | None = None) -> "pd.DataFrame":
    """Drift and restoration of every method (`results.drift.drift_table`) as each judge of the run sees them.

    Args:
        folder: of the run.
        tuned: label of the fine-tuned method.
        store_path: folder of a store shared with other runs.

    Returns:
        `judge`, `category` and the columns of `drift_table`. A judge has rows of the measures whose facet it decides:
        of harm, of refusal. `category` is empty for all harm, else a hazard category that the judge named: then only
        responses that are harmful in this category count, out of all n.

    Raises:
        InputError: the folder holds no run, something is not judged yet, or base or `tuned` are not finished.
    """
    import pandas as pd

    plan = load_plan(folder)
    store = read_store(folder, store_path)
    try:
        rows = [_answered(plan, folder, store, row) for row in plan.rows]
    finally:
        store.close()
    check_against_manifest(folder, [row.result for row in rows])
    over_worlds = preset_of([spec.id for spec in plan.config.models]) is not None
    tables = []
    for number, name in enumerate(judge.name for judge in rows[0].judged.judges):
        for category in ("", *_categories(rows, number)):
            results = [_as_seen(row, number, category) for row in rows]
            if any(result.safety for result in results):
                table = drift_table(results, over_worlds, tuned)
                table.insert(0, "judge", name)
                table.insert(1, "category", category)
                tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["judge", "category", *COLUMNS])


def _answered(plan: Plan, folder: Path, store: Store, row: Row) -> _Answered:
    assigned = store.assignments(plan.digest)
    states = [assigned.get(name_of(cell), (None, "failed: not finished"))[1] for cell in plan.cells if cell.row == row]
    faults = [status for status in states if status != "ok"]
    name = f"{row.model} / {row.label} / seed {row.seed}"
    keys = [key for cell, key in finished(plan, store, row).items() if cell.role in ROLES]
    digest = model_digest_of(name, [store.cell_parts(key) for key in keys])
    result = MethodResult(
        model=row.model, method=row.label, stage=row.stage, seed=row.seed, status=faults[0] if faults else "ok",
        model_digest=digest,
    )  # fmt: skip
    return _Answered(result, judged_row(plan, folder, store, row))


def _categories(rows: Sequence[_Answered], number: int) -> list[str]:
    """The hazard categories that a judge named, sorted by their number where they have one."""
    found = {
        category
        for row in rows
        for task in row.judged.tasks
        if FACETS[task.role] == "harm"
        for verdicts in task.verdicts.values()
        if verdicts[number].harmful
        for category in verdicts[number].categories
    }
    return sorted(found, key=lambda name: (len(name), name))


def _as_seen(row: _Answered, number: int, category: str) -> MethodResult:
    """The row's responses as one judge sees them, in the roles whose facet it decides."""
    decides = row.judged.judges[number].decides
    safety: dict[str, Any] = {
        task.role: list(_samples(task, number, category))
        for task in row.judged.tasks
        if FACETS[task.role] in decides and (not category or FACETS[task.role] == "harm")
    }
    return replace(row.result, safety=safety)


def _samples(task: JudgedTask, number: int, category: str) -> Iterator[Sample]:
    for doc_id, verdicts in task.verdicts.items():
        verdict = verdicts[number]
        counts = verdict.harmful and (not category or category in verdict.categories)
        outcome = Outcome.HARMFUL if counts else Outcome.BENIGN
        if FACETS[task.role] == "harm" and verdict.harmful is None:
            outcome = Outcome.UNPARSED
        yield Sample(doc_id, outcome, verdict.refused)
