"""A run's responses and verdicts as tables, read from its store."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...judges.base import Exchange
from ...results.method_result import ROLES
from ...results.records import Verdict, combine
from ..plan import Cell, Plan
from ..store.store import JudgeRecord, Sample, Store
from .folder import load_plan, name_of, read_store
from .judge import deciders, judged_as
from .worlds import world_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["decided_of", "each_judged", "responses", "verdicts"]

_ROW = {"model": "string", "method": "string", "seed": "Int64", "task": "string", "role": "string", "doc_id": "Int64"}
RESPONSES = {
    **_ROW, **dict.fromkeys(("prompt", "prefix", "response", "outcome"), "string"),
    **dict.fromkeys(("harmful", "refused"), "boolean"),
}  # fmt: skip
"""Columns of `responses`, with their types."""
VERDICTS = {
    **_ROW, "judge": "string", **dict.fromkeys(("harmful", "refused", "coherent"), "boolean"), "score": "Float64",
    "grade": "Float64", "categories": "string", "unfinished": "boolean", "raw": "string",
}  # fmt: skip
"""Columns of `verdicts`, with their types."""
Said = Sequence[tuple[JudgeRecord, Verdict | None]]
"""A judge and its verdict; None: nothing yet."""
Judged = tuple[Cell, Sample, Said]


def responses(folder: Path, store_path: Path | None = None) -> "pd.DataFrame":
    """Every judged response of a run, one a row, sweeps aside (`RESPONSES`).

    `outcome`, `harmful` and `refused` are what the leaderboard counts: each facet is decided by the first judge that
    decides it. They are empty where that verdict could not be parsed, and all are where a judge has not come yet.

    Args:
        folder: of the run.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run.
    """
    return _table(folder, store_path, _response, RESPONSES)


def verdicts(folder: Path, store_path: Path | None = None) -> "pd.DataFrame":
    """Every verdict of a run, one a row: what each judge says of each response (`VERDICTS`).

    Args:
        folder: of the run.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run.
    """
    return _table(folder, store_path, _verdicts, VERDICTS)


def each_judged(plan: Plan, folder: Path, store: Store, cell: Cell, key: str) -> Iterator[Judged]:
    """The responses of one finished cell, by document, each with what the judges of its model say; None: nothing yet.

    Args:
        plan: of the run.
        folder: of the run.
        store: open.
        cell: which cell.
        key: its key in the store.
    """
    judges = store.judges(judged_as(plan.digest, world_in(folder, cell.model)))
    for sample in store.each_sample(key):
        exchange = Exchange(sample.prompt, sample.response)
        yield cell, sample, [(each, store.verdicts(each.identity, [exchange]).get(exchange)) for each in judges]


def decided_of(said: Said) -> list[tuple[frozenset[str], Verdict]]:
    """What `combine` takes: the verdicts of the judges that decide something; none where one of them has none yet."""
    deciding = deciders([judge for judge, _ in said])
    known = [(judge.decides, verdict) for judge, verdict in said if judge in deciding and verdict is not None]
    return known if len(known) == len(deciding) else []


def _table(folder: Path, store_path: Path | None, rows: Any, columns: Mapping[str, str]) -> "pd.DataFrame":
    import pandas as pd

    plan = load_plan(folder)
    with closing(read_store(folder, store_path)) as store:
        assigned = store.assignments(plan.digest)
        cells = {cell: assigned.get(name_of(cell), (None, ""))[0] for cell in plan.cells if cell.role in ROLES}
        found = [
            about
            for cell, key in cells.items()
            if key
            for judged in each_judged(plan, folder, store, cell, key)
            for about in rows(*judged)
        ]
    return pd.DataFrame(found, columns=list(columns)).astype(dict(columns))


def _about(cell: Cell, sample: Sample) -> dict[str, Any]:
    return {
        "model": cell.model, "method": cell.label, "seed": cell.seed, "task": cell.task, "role": cell.role,
        "doc_id": sample.doc_id,
    }  # fmt: skip


def _response(cell: Cell, sample: Sample, said: Said) -> Iterator[Any]:
    about = _about(cell, sample) | {"prompt": sample.prompt, "prefix": sample.prefix, "response": sample.response}
    if decided := decided_of(said):
        outcome, verdict = combine(decided)
        about |= {"outcome": outcome.value, "harmful": verdict.harmful, "refused": verdict.refused}
    yield about


def _verdicts(cell: Cell, sample: Sample, said: Said) -> Iterator[Any]:
    for judge, verdict in said:
        if verdict is not None:
            facts = asdict(verdict) | {"categories": ", ".join(verdict.categories)}
            yield _about(cell, sample) | {"judge": judge.name} | facts
