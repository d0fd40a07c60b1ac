"""report.html of one run or of several: what its page says of them, and the responses as they lie in their stores."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...judges.base import Exchange
from ...results.html import Answer, Asked, Report, Source, write_report
from ...results.method_result import ROLES, MethodResult
from ...results.records import combine
from ...tasks.sandbox.location import cache_folder
from ..config.file import as_yaml
from ..plan import Cell, Plan, Row, frontier_points
from ..store.store import JudgeRecord, Sample, Store
from .judge import judged_as
from .judge_tables import JudgeTables
from .judged import notes_of
from .worlds import world_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OpenRun", "commands", "starts", "write_page"]


@dataclass(frozen=True)
class OpenRun:
    """A run folder with its store open."""

    plan: Plan
    folder: Path
    store: Store
    keys: Mapping[Cell, str]
    """The finished cells' keys in the store."""

    def judges(self, model: str) -> list[JudgeRecord]:
        """Those of a model, in the order in which they decide."""
        return self.store.judges(judged_as(self.plan.digest, world_in(self.folder, model)))


def write_page(
    whole: Plan,
    runs: Sequence[OpenRun],
    results: Sequence[MethodResult],
    frame: "pd.DataFrame",
    judges: JudgeTables,
    output: Path,
    over_worlds: bool,
    published: "pd.DataFrame | None" = None,
) -> list[Path]:
    """Writes report.html and its further pages of responses.

    Args:
        whole: the plan of all runs together.
        runs: in the order of `results`.
        results: one per row of each run.
        frame: their leaderboard.
        judges: what their judges say beside each other.
        output: folder that the page goes to.
        over_worlds: whether the models are replicas.
        published: published numbers beside measured ones; None where the config names none.

    Returns:
        The files written.

    Raises:
        InputError: a file cannot be written.
    """
    records = runs[0].judges(runs[0].plan.config.models[0].id)
    report = Report(
        results=results,
        frame=frame,
        judges=notes_of(records),
        judge_rates=judges.rates,
        judge_errors=judges.errors,
        agreement=judges.agreement,
        asked=_asked(runs),
        points=frontier_points(whole.config),
        starts=starts(whole if len(runs) == 1 else runs[0].plan),
        over_worlds=over_worlds,
        published=published,
        sources=[_source(run) for run in runs],
    )
    return write_report(report, output, cache_folder())


def starts(plan: Plan) -> dict[str, str]:
    """Label of a post-hoc row -> label of the row that it starts from, where some row shows that."""
    labels = {row.build: row.label for row in plan.rows if row.build}
    parents = {step.id: step.parent for step in plan.builds}
    found = {row.label: parents.get(row.build) for row in plan.rows if row.build}
    return {label: labels[parent] for label, parent in found.items() if parent in labels}


def _asked(runs: Sequence[OpenRun]) -> Iterator[Asked]:
    """Every judged prompt, task by task, except those of sweeps; only one prompt is in memory at a time."""
    first = 0
    for run in runs:
        numbers = {row: first + i for i, row in enumerate(run.plan.rows)}
        first += len(numbers)
        for model in dict.fromkeys(row.model for row in run.plan.rows):
            judges = run.judges(model)
            cells = [cell for cell in run.plan.cells if cell.model == model and cell.role in ROLES and cell in run.keys]
            for task in dict.fromkeys(cell.task for cell in cells):
                yield from _of_task(run, model, task, [cell for cell in cells if cell.task == task], numbers, judges)


def _of_task(
    run: OpenRun,
    model: str,
    task: str,
    cells: Sequence[Cell],
    numbers: Mapping[Row, int],
    judges: Sequence[JudgeRecord],
) -> Iterator[Asked]:
    streams = [_numbered(run, cell, numbers[cell.row]) for cell in cells]
    for doc_id, group in groupby(merge(*streams, key=_document), key=_document):
        samples = dict(group)
        first = next(iter(samples.values()))
        answers = _answers(run.store, samples, judges)
        yield Asked(model, task, doc_id, first.prompt, first.prefix, answers)


def _numbered(run: OpenRun, cell: Cell, number: int) -> Iterator[tuple[int, Sample]]:
    return ((number, sample) for sample in run.store.each_sample(run.keys[cell]))


def _document(numbered: tuple[int, Sample]) -> int:
    return numbered[1].doc_id


def _answers(store: Store, samples: Mapping[int, Sample], judges: Sequence[JudgeRecord]) -> dict[int, Answer]:
    exchanges = {number: Exchange(sample.prompt, sample.response) for number, sample in samples.items()}
    different = list(dict.fromkeys(exchanges.values()))
    known = [store.verdicts(judge.identity, different) for judge in judges]
    judged = {}
    for exchange in different:
        verdicts = tuple(each[exchange] for each in known)
        outcome, _ = combine([(judge.decides, verdict) for judge, verdict in zip(judges, verdicts, strict=True)])
        judged[exchange] = Answer(exchange.response, outcome, verdicts)
    return {number: judged[exchange] for number, exchange in exchanges.items()}


def _source(run: OpenRun) -> Source:
    manifest = _manifest(run.folder)
    config = as_yaml(run.plan.config.model_dump(mode="json"))
    return Source(run.folder.resolve().name, manifest, config, commands(run.plan, manifest))


def commands(plan: Plan, manifest: Mapping[str, Any]) -> list[str]:
    """What to type to make a run again, from the config that the page shows."""
    git = manifest.get("git") or {}
    lines = []
    if git:
        lines = [f"git checkout {git.get('commit')}", "pip install -c constraints.txt -e ."]
    elif manifest:
        lines = [f"pip install safebasin=={manifest.get('safebasin')}"]
    settings = ((manifest.get("hardware") or {}).get("cpu") or {}).get("environment") or {}
    words = [*(f"{name}={shlex.quote(str(value))}" for name, value in settings.items()), "safebasin run run.yaml"]
    output = shlex.quote(f"runs/{plan.config.name}")
    return [*lines, "# save the resolved config below as run.yaml", f"{' '.join(words)} --output {output}"]


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # the run is not finished
    return found if isinstance(found, dict) else {}
