"""What lm-eval logs of every sample (`--log_samples`): samples_*.jsonl, read as responses to requests."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError, listed
from ...judges.base import Exchange
from ...tasks.rows.conversations import Unusable
from ...tasks.rows.formats import read_table, table_of
from ...tasks.rows.shapes import row_of, shape_of

__all__ = ["Logged", "LoggedRow", "exchanges_of", "is_logged", "read_logged"]

_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")
_NEEDED = ("doc_id", "doc", "arguments", "resps", "doc_hash", "prompt_hash")


class LoggedRow(NamedTuple):
    """One document, as it was asked and answered."""

    doc_id: int
    doc: Mapping[str, Any]
    asked: str
    """The request as the model saw it: chat template, examples and all."""
    settings: Any
    """Of the generation; of a likelihood, the continuation whose likelihood was asked."""
    response: str
    doc_hash: str
    prompt_hash: str
    target_hash: str
    metrics: Mapping[str, float]
    record: Mapping[str, Any] | None
    """What our own filter noted: outcome, verdict and the facets decided; None of other tasks."""

    @property
    def generated(self) -> bool:
        """Whether the response is text."""
        return isinstance(self.settings, Mapping)


@dataclass(frozen=True)
class Logged:
    """One file of samples."""

    path: Path
    task: str
    model: str
    """The folder that it lies in: lm-eval calls it by the model."""
    rows: tuple[LoggedRow, ...]
    """By document; where lm-eval logged several filters' views of a document, the first one's."""
    results: Mapping[str, Any] | None
    """The results_*.json of the same moment; None where there is none."""


def is_logged(where: Path) -> bool:
    """Whether a path may be lm-eval's samples, and is no run folder."""
    return where.is_file() or (where.is_dir() and any(where.rglob("samples_*.jsonl")))


def read_logged(where: Path) -> list[Logged]:
    """Reads a file of samples, or all in a folder and its folders.

    Raises:
        InputError: there are none; one is damaged or of another kind; or a document has several responses.
    """
    paths = [where] if where.is_file() else sorted(where.rglob("samples_*.jsonl"))
    if not paths:
        raise InputError(
            f"{where} holds neither a run (plan.json) nor lm-eval's samples (samples_*.jsonl). Give what "
            "`safebasin run` wrote, or the --output_path of `lm_eval --log_samples`."
        )
    return [_read(path) for path in paths]


def _read(path: Path) -> Logged:
    table = read_table(str(path))
    if missing := [name for name in _NEEDED if name not in table.columns]:
        raise InputError(
            f"{path} is no file of lm-eval's samples: it lacks {', '.join(missing)}. Give a samples_*.jsonl of "
            "`lm_eval --log_samples` (0.4.3 or later)."
        )
    rows: dict[int, LoggedRow] = {}
    faults = list(table.faults)
    for record in table.records:
        try:
            row = _row(record.cells)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            faults.append(f"{record.place}: {type(error).__name__}: {error}.")
            continue
        rows.setdefault(row.doc_id, row)
    if faults:
        raise InputError(f"{path}: {len(faults)} samples cannot be used:\n{listed(faults)}")
    found = _NAME.fullmatch(path.name)
    task, date = (found["task"], found["date"]) if found else (path.stem, "")
    ordered = tuple(rows[doc_id] for doc_id in sorted(rows))
    return Logged(path, task, path.resolve().parent.name, ordered, _results(path, date))


def _row(cells: Mapping[str, Any]) -> LoggedRow:
    asked = cells["arguments"]["gen_args_0"]
    responses = cells["resps"][0] if isinstance(cells["resps"][0], list) else cells["resps"]
    settings = asked.get("arg_1")
    if isinstance(settings, Mapping) and len(responses) != 1:
        raise ValueError(f"{len(responses)} responses to one request; one is judged and compared")
    return LoggedRow(
        doc_id=int(cells["doc_id"]),
        doc=cells["doc"] if isinstance(cells["doc"], Mapping) else {"prompt": str(cells["doc"])},
        asked=str(asked["arg_0"]),
        settings=settings,
        response=str(responses[0]),
        doc_hash=str(cells["doc_hash"]),
        prompt_hash=str(cells["prompt_hash"]),
        target_hash=str(cells.get("target_hash", "")),
        metrics={name: float(cells[name]) for name in cells.get("metrics", ()) if _is_number(cells.get(name))},
        record=_record(cells.get("filtered_resps")),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _record(filtered: Any) -> Mapping[str, Any] | None:
    """Our filter's note on the response, if this is one."""
    while isinstance(filtered, list) and filtered:
        filtered = filtered[0]
    if not isinstance(filtered, str) or not filtered.startswith('{"outcome"'):
        return None
    try:
        found = json.loads(filtered)
    except ValueError:
        return None  # a response that begins like a note
    return found if {"outcome", "verdict", "facets"} <= found.keys() else None


def _results(path: Path, date: str) -> Mapping[str, Any] | None:
    beside = path.with_name(f"results_{date}.json")
    try:
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{beside} is no JSON ({error}). Move it away, or mend it.") from error


def exchanges_of(logged: Logged, columns: Mapping[str, str]) -> list[Exchange]:
    """What a judge sees of each sample: the request without template and examples, and the response.

    Args:
        logged: the samples.
        columns: role -> field of the document, where its names do not tell which is the prompt.

    Raises:
        InputError: nothing was generated, or the prompt is not known.
    """
    if silent := [row.doc_id for row in logged.rows if not row.generated]:
        raise InputError(
            f"{logged.path} has nothing to judge: document {silent[0]} was scored by likelihood and no text was "
            "generated. Give samples of a task that generates."
        )
    return [_exchange(row, prompt) for row, prompt in zip(logged.rows, _prompts(logged, columns), strict=True)]


def _exchange(row: LoggedRow, prompt: str) -> Exchange:
    from ...tasks.judging import exchange_of

    return exchange_of({**row.doc, "prompt": prompt}, row.response)


def _prompts(logged: Logged, columns: Mapping[str, str]) -> list[str]:
    if not columns and all(isinstance(row.doc.get("prompt"), str) for row in logged.rows):
        return [row.doc["prompt"] for row in logged.rows]
    docs = [row.doc for row in logged.rows]
    table = table_of(docs, (f"document {row.doc_id}" for row in logged.rows), str(logged.path))
    shape = shape_of(table, str(logged.path), ("prompt",), columns)
    prompts, faults = [], list(table.faults)
    for record in table.records:
        try:
            prompts.append(row_of(record, shape, ("prompt",))["prompt"])
        except Unusable as error:
            faults.append(f"{record.place}: {error}.")
    if faults:
        raise InputError(f"{logged.path}: {len(faults)} documents have no prompt:\n{listed(faults)}")
    return prompts
