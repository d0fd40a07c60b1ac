"""Whose labels correct the rates of a run: a file's, people's, or in the sandbox the oracle's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, listed
from ...registry import suggest
from ...results.judged import FACETS, JudgedRow
from ...results.labels import Label, LabelSet, labels_of_judge
from ...tasks.rows.conversations import Unusable
from ...tasks.rows.formats import Record, read_table
from ...tasks.rows.shapes import label_of

__all__ = ["LABELS", "labels_for", "read_labels"]

LABELS = "labels.csv"
"""In a run folder: labels that every report takes."""
ORACLE = "sandbox_oracle"
_IDENTITY = ("model", "method", "seed", "task", "doc_id")
_LABEL = {"harm": "harmful", "refusal": "refused"}
"""Facet that a task counts -> column that labels it."""


def labels_for(folder: Path, rows: Sequence[JudgedRow], given: Path | None = None) -> LabelSet | None:
    """The labels of a run: `given`, else labels.csv in its folder, else of the sandbox's tasks the oracle's.

    Raises:
        InputError: the file cannot be used (`read_labels`).
    """
    path = given or folder / LABELS
    if given or path.is_file():
        return read_labels(path, rows)
    tasks = {task.task for row in rows for task in row.tasks if task.task.startswith("sandbox_")}
    found = labels_of_judge(rows, ORACLE, sorted(tasks))
    return found if found.labels else None


def read_labels(path: Path, rows: Sequence[JudgedRow]) -> LabelSet:
    """Reads a table of labels, one row per labelled response.

    Columns: `method`, `task`, `doc_id`, and `model` and `seed` where the run has several; `harmful` (of tasks that
    count refusals `refused`), as true or false; and `weight` where the responses had not all the same chance to be
    drawn: how many each stands for. Rows without a label are left out; other columns are not read.

    Args:
        path: of a file in any format that rows are read from.
        rows: of the run.

    Raises:
        InputError: all rows that cannot be used: of responses that the run does not have, with two labels that differ,
            or whose cells are not what they should be.
    """
    table = read_table(str(path))
    known = {(row.model, row.method, row.seed, task.task): task for row in rows for task in row.tasks}
    absent = {
        name: only.pop() if len(only := {key[place] for key in known}) == 1 else None
        for place, name in enumerate(_IDENTITY[:4])
    }
    lacking = [name for name in _IDENTITY if name not in table.columns and absent.get(name) is None]
    if lacking or not {*_LABEL.values()} & {*table.columns}:
        wanted = ", ".join(lacking) or "harmful"
        raise InputError(f"'{path}' is no table of labels of this run: it lacks {wanted}. See docs/statistics.md.")
    found: dict[tuple[str, str, int, str], dict[int, Label]] = {}
    faults = list(table.faults)
    for record in table.records:
        try:
            key, doc_id = _response(record, absent)
            if key not in known or doc_id not in known[key].verdicts:
                raise Unusable(f"the run has no response {_named(key, doc_id)}. {_nearest(key, known)}")
            label = _label(record.cells, _LABEL[FACETS[known[key].role]])
        except Unusable as error:
            faults.append(f"{record.place}: {error}")
            continue
        if label and (before := found.setdefault(key, {}).setdefault(doc_id, label)).yes is not label.yes:
            faults.append(f"{record.place}: {_named(key, doc_id)} has another label before: {before.yes}. Settle it.")
    if faults:
        raise InputError(f"'{path}': {len(faults)} rows cannot be used:\n{listed(faults)}")
    return LabelSet(path.name, {key: own for key, own in found.items() if own})


Key = tuple[str, str, int, str]


def _response(record: Record, absent: Mapping[str, Any]) -> tuple[Key, int]:
    """Which response a row is about; what the run has only one of need not be said."""
    cells: dict[str, Any] = {**absent, **{name: record.cells[name] for name in _IDENTITY if name in record.cells}}
    if missing := [name for name in _IDENTITY if cells.get(name) in (None, "")]:
        raise Unusable(f"{', '.join(missing)} is empty.")
    try:
        seed, doc_id = int(cells["seed"]), int(cells["doc_id"])
    except (TypeError, ValueError) as error:
        raise Unusable(f"seed {cells['seed']!r} and doc_id {cells['doc_id']!r} must be whole numbers.") from error
    return (str(cells["model"]), str(cells["method"]), seed, str(cells["task"])), doc_id


def _label(cells: Mapping[str, Any], column: str) -> Label | None:
    cell, weight = cells.get(column, ""), cells.get("weight", 1.0)
    if cell is None or str(cell).strip() == "":
        return None
    try:
        number = float(weight)
    except (TypeError, ValueError) as error:
        raise Unusable(f"weight {weight!r} is no number.") from error
    if not 0 < number < float("inf"):
        raise Unusable(f"weight {weight!r} is no number above 0.")
    return Label(label_of(column, cell), number)


def _named(key: Key, doc_id: int) -> str:
    model, method, seed, task = key
    return f"{model} / {method} / seed {seed} / {task} #{doc_id}"


def _nearest(key: Key, known: Mapping[Key, Any]) -> str:
    """What of the response's name the run does not know."""
    for place in (1, 3, 0):
        names = sorted({str(each[place]) for each in known})
        if key[place] not in names:
            return suggest(str(key[place]), names)
    return "Its documents are numbered from 0."
