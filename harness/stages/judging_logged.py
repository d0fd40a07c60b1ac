"""lm-eval's logged samples before judges: verdicts, rates and agreement, for people who never ran this harness."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape

from ...judges.base import Exchange, Judge, RemoteJudge
from ...results.agreement import agreement_table, disagreements
from ...results.export import make_folder, write_table
from ...results.judged import FIELDS, JudgedRow, JudgedTask
from ...results.method_result import ROLES
from ...results.records import Verdict
from ...results.statistics import rate
from ...tasks.catalog import tasks
from ...tasks.verdicts import JudgeSpec, build_judges
from ..store.digests import digest_of
from ..store.store import Sample, Store
from ..terminal.progress import bars
from ..terminal.quiet import quiet
from .judge import judge_cells, record_of
from .judged import notes_of
from .logged import Logged, exchanges_of, read_logged

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RATES", "judge_logged"]

STORE = "judged.sqlite"
"""Keeps every verdict, so that no sample is judged twice."""
RATES = ("task", "model", "judge", "counted", "n", "count", "rate", "low", "high", "unparsed")
VERDICTS = (
    *("task", "model", "doc_id", "doc_hash", "prompt_hash", "judge", "harmful", "refused", "coherent", "grade"),
    *("score", "categories", "raw"),
)


def judge_logged(
    where: Path,
    specs: Sequence[JudgeSpec],
    columns: Mapping[str, str],
    output: Path | None,
    console: Console,
) -> tuple["pd.DataFrame", "pd.DataFrame", "pd.DataFrame"]:
    """Judges a file of samples, or all in a folder, and writes what came of it.

    Writes judged-rates.csv, judged-verdicts.csv, and of several judges judged-agreement.csv and
    judged-disagreements.csv; verdicts are kept in judged.sqlite, and none is asked for twice.

    Args:
        where: a samples_*.jsonl, or a folder with some.
        specs: judges, as in a config.
        columns: role -> field of the documents, where their names do not tell which is the prompt.
        output: where the files go; None is beside the samples.
        console: where progress goes.

    Returns:
        Rates, agreement and disagreements (the last two empty with one judge).

    Raises:
        InputError: the samples cannot be read or hold no text to judge, or a judge cannot be had.
    """
    import pandas as pd

    quiet()
    read = read_logged(where)
    exchanges = [exchanges_of(logged, columns) for logged in read]
    judges = build_judges(specs, whole=False)
    folder = make_folder(output or (where.parent if where.is_file() else where))
    with closing(Store(folder / STORE)) as store, bars(console) as shown:
        for judge in judges:
            if isinstance(judge, RemoteJudge):
                shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")
        keys = [_keep(store, logged, own) for logged, own in zip(read, exchanges, strict=True)]
        judge_cells(judges, keys, "samples", store, lambda name, *n: shown.update(f"judge: {name}", *n))
        verdicts = [[store.verdicts(judge.identity, own) for judge in judges] for own in exchanges]
        for judge in judges:
            if isinstance(judge, RemoteJudge):
                shown.say(escape(f"judge {judge.name}: {', '.join(f'{k} {v}' for k, v in judge.spent.items())}"))
    rows = [_row(logged, own, judges, each) for logged, own, each in zip(read, exchanges, verdicts, strict=True)]
    rates = pd.DataFrame([line for row in rows for line in _rates(row)], columns=list(RATES))
    lines = [line for logged, row in zip(read, rows, strict=True) for line in _verdicts(logged, row)]
    agreement, differ = agreement_table(rows, over_worlds=False), disagreements(rows)
    write_table(rates, folder / "judged-rates.csv")
    write_table(pd.DataFrame(lines, columns=list(VERDICTS)), folder / "judged-verdicts.csv")
    if len(judges) > 1:
        write_table(agreement, folder / "judged-agreement.csv")
        write_table(differ, folder / "judged-disagreements.csv")
    return rates, agreement, differ


def _keep(store: Store, logged: Logged, exchanges: Sequence[Exchange]) -> str:
    """Puts the samples of a file into the store, under the digest of what they say."""
    samples = [Sample(row.doc_id, *exchange) for row, exchange in zip(logged.rows, exchanges, strict=True)]
    key = digest_of([logged.task, [[s.doc_id, s.prompt, s.response] for s in samples]])
    store.add_cell(key, {"task": logged.task, "file": logged.path.name}, None, samples, len(samples))
    return key


def _row(
    logged: Logged, exchanges: Sequence[Exchange], judges: Sequence[Judge], known: Sequence[Mapping[Exchange, Verdict]]
) -> JudgedRow:
    info = tasks().get(logged.task)
    role = info.role if info and info.role in ROLES else "hrr"
    verdicts, units = {}, {}
    for row, exchange in zip(logged.rows, exchanges, strict=True):
        verdicts[row.doc_id] = [found[exchange] for found in known]
        units[row.doc_id] = digest_of([*exchange])
    task = JudgedTask(logged.task, role, verdicts, units)
    return JudgedRow(logged.model, logged.path.name, 0, notes_of([record_of(judge) for judge in judges]), [task])


def _rates(row: JudgedRow) -> Iterator[dict[str, Any]]:
    """The share of responses of which each judge says what it decides: harmful, refused, incoherent."""
    (task,) = row.tasks
    for number, judge in enumerate(row.judges):
        for facet, name in FIELDS.items():
            if facet in judge.decides:
                wanted = facet != "coherence"
                said = [getattr(verdicts[number], name) for verdicts in task.verdicts.values()]
                counted = {"coherent": "incoherent"}.get(name, name)
                found = rate(sum(x is wanted for x in said), len(said), sum(x is None for x in said))
                yield {
                    **{"task": task.task, "model": row.model, "judge": judge.name, "counted": counted, "n": found.n},
                    **{"count": found.k, "rate": found.value, "low": found.low, "high": found.high},
                    "unparsed": found.unparsed,
                }


def _verdicts(logged: Logged, row: JudgedRow) -> Iterator[tuple[Any, ...]]:
    (task,) = row.tasks
    for sample in logged.rows:
        for judge, verdict in zip(row.judges, task.verdicts[sample.doc_id], strict=True):
            yield (
                logged.task, logged.model, sample.doc_id, sample.doc_hash, sample.prompt_hash, judge.name,
                verdict.harmful, verdict.refused, verdict.coherent, verdict.grade, verdict.score,
                " ".join(verdict.categories), verdict.raw,
            )  # fmt: skip
