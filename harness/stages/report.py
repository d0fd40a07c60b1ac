"""From the store back to the leaderboard: nothing here loads a model or generates a word."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ...errors import InputError
from ...judges.base import Exchange
from ...results.identity import check_one_model_per_name
from ...results.method_result import ROLES, MethodResult, Relapse, Sample, SweepSample
from ...results.records import Verdict, combine
from ...tasks.catalog import TaskInfo
from ..plan import Cell, Plan, RelapseCell, Row, frontier_points
from ..store.files import make_folder
from ..store.store import JudgeRecord, Store
from .build import changed, load_checkpoint
from .cards import write_cards
from .folder import load_plan, name_of, read_store
from .generate import task_infos
from .judge import deciders, judged_as
from .judge_tables import JudgeTables, judge_tables
from .judged import judged_rows, with_verdicts
from .published import write_published
from .relapse import attack_folder, load_attacked
from .replicas import check_against_manifest, model_digest_of, preset_of, report_replicas
from .report_page import OpenRun, write_page
from .together import different, put_together
from .worlds import world_in

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["judged_samples", "report", "report_together", "results_of"]


def report(
    folder: Path,
    console: Console,
    store_path: Path | None = None,
    reference: str | None = None,
    labels: Path | None = None,
) -> "pd.DataFrame":
    """Rewrites leaderboard.csv, leaderboard.md and report.html of a run folder and prints the table.

    A run with several seeds gets leaderboard-seeds.csv and .md as well, the means over seeds; one with a frontier
    frontier.csv, frontier-at-equal-loss.csv and frontier.svg; one with a VISAGE task visage.csv, visage-scores.csv and
    visage.svg; one with `tasks.relapse` relapse.csv; one with base and `lora` drift.csv; one whose data name kinds of
    requests categories.csv; one with several worlds of one preset replicas.csv and .md, the table of claims over
    worlds, and with `tasks.relapse` relapse-worlds.csv; one whose config names published numbers published.csv. What
    each judge says is in judges.csv; two judges of the same get agreement.csv and disagreements.csv, labels
    judge-errors.csv. Restored checkpoints get a README.md with what was measured of them.

    Args:
        folder: of the run.
        console: where the tables go.
        store_path: folder of a store shared with other runs.
        reference: method that others are compared with over worlds and on the frontier; the first one that repairs by
            default.
        labels: file of labels by which rates are corrected (`labelling.read_labels`); None takes labels.csv of the run
            folder, or in the sandbox the oracle's.

    Raises:
        InputError: the folder holds no run, nothing of it is finished, rows of one model are of different models, or
            the labels cannot be used.
    """
    plan = load_plan(folder)
    return _written(plan, [(plan, folder)], folder, console, store_path, reference, labels)


def report_together(
    folders: Sequence[Path],
    output: Path,
    console: Console,
    store_path: Path | None = None,
    reference: str | None = None,
    labels: Path | None = None,
) -> "pd.DataFrame":
    """The same of several run folders as of one: runs that measured alike, whatever their models, methods and seeds.

    So may twelve worlds run side by side, in several processes or on several machines of one kind, and so may a method
    be added to a leaderboard. A row that several runs have is shown once.

    Args:
        folders: of the runs.
        output: where the files go.
        console: where the tables go.
        store_path: folder of a store that all of them share.
        reference: as for `report`.
        labels: as for `report`.

    Raises:
        InputError: as `report`; or the runs are not comparable, and why (`together`).
    """
    plans = [load_plan(folder) for folder in folders]
    whole = put_together(plans, folders)
    return _written(whole, list(zip(plans, folders, strict=True)), output, console, store_path, reference, labels)


def _written(
    plan: Plan,
    runs: Sequence[tuple[Plan, Path]],
    folder: Path,
    console: Console,
    store_path: Path | None,
    reference: str | None,
    labels: Path | None,
) -> "pd.DataFrame":
    """Writes all files of the runs, which `plan` puts together, into `folder`, and prints the tables."""
    with ExitStack() as stack:
        opened = []
        for own, where in runs:
            store = stack.enter_context(closing(read_store(where, store_path)))
            opened.append(OpenRun(own, where, store, _keys(own, store)))
        opened = different(opened)
        found = [results_of(run.plan, run.folder, run.store) for run in opened]
        results = [result for own in found for result in own]
        check_one_model_per_name((result.model, result.model_digest) for result in results)
        make_folder(folder)
        over_worlds = preset_of([model.id for model in plan.config.models]) is not None
        judged = [row for run in opened for row in judged_rows(run.plan, run.folder, run.store)]
        judges = judge_tables(judged, folder, over_worlds, labels)
        frame = _tables(plan, results, judges, folder, console, reference, over_worlds)
        published = write_published(plan.config, results, frame, folder, console)
        pages = write_page(plan, opened, results, frame, judges, folder, over_worlds, published)
        if [run.folder for run in opened] == [folder]:
            write_cards(plan, folder, results, opened[0].store)
    for own, where in runs:
        _tell_changed(own, where, console)
    _tell_where(folder, len(pages), console)
    return frame


def _tell_changed(plan: Plan, folder: Path, console: Console) -> None:
    """Says which checkpoints of a run are not those that its rows were measured on."""
    for build in dict.fromkeys(row.build for row in plan.rows if row.build):
        checkpoint = load_checkpoint(folder / "checkpoints" / build)
        if checkpoint and (fault := changed(checkpoint)):
            line = f"warning: the checkpoint {build} has changed since it was measured: {fault}"
            console.print(Text(line, style="yellow"), soft_wrap=True)


def _keys(plan: Plan, store: Store) -> dict[Cell, str]:
    """The finished cells of a plan, with their keys."""
    assigned = store.assignments(plan.digest)
    return {cell: key for cell in plan.cells if (key := assigned.get(name_of(cell), (None, ""))[0])}


def _tell_where(folder: Path, pages: int, console: Console) -> None:
    more = f" (its responses on {pages} pages)" if pages > 1 else ""
    line = f"Everything is in {folder}: report.html{more} for a browser, leaderboard.md and leaderboard.csv."
    console.print(Text(line), soft_wrap=True)


def _tables(
    plan: Plan,
    results: Sequence[MethodResult],
    judges: JudgeTables,
    folder: Path,
    console: Console,
    reference: str | None,
    over_worlds: bool,
) -> "pd.DataFrame":
    from ...results.aggregate import aggregate, write_aggregate
    from ...results.by_category import by_category
    from ...results.drift import write_drift
    from ...results.export import write_csv, write_markdown, write_table
    from ...results.frontier import frontier, write_frontier
    from ...results.judge_table import with_corrected
    from ...results.leaderboard import leaderboard
    from ...results.relapse import write_relapse
    from ...results.replicas import default_reference
    from ...results.sweep import write_visage
    from ...results.terminal import render

    frame = with_corrected(leaderboard(results), judges.rates)
    if len(plan.config.seeds) > 1:
        write_aggregate(aggregate(results), folder / "leaderboard-seeds.csv")
    if plan.config.frontier:
        points = frontier(results, frontier_points(plan.config))
        write_frontier(points, folder, reference or default_reference(results), over_worlds)
    write_visage(results, folder)
    write_relapse(results, folder)
    write_drift(results, over_worlds, folder / "drift.csv")
    kinds = by_category(results)
    if len(kinds):
        write_table(kinds, folder / "categories.csv")
    write_csv(frame, folder / "leaderboard.csv")
    write_markdown(frame, folder / "leaderboard.md")
    judges.write(folder)
    render(frame, console)
    judges.show(console)
    if over_worlds:
        report_replicas(results, folder, console, reference)
    return frame


def results_of(plan: Plan, folder: Path, store: Store) -> list[MethodResult]:
    """One result per row of the plan.

    Raises:
        InputError: nothing of the run is finished yet, or its rows are of other models than the run's.
    """
    assigned = store.assignments(plan.digest)
    if not assigned:
        raise InputError(f"Nothing of the run in {folder} is finished yet. Run `safebasin run` first.")
    judges = {spec.id: store.judges(judged_as(plan.digest, world_in(folder, spec.id))) for spec in plan.config.models}
    tasks = task_infos(plan.config)
    results = [
        _result(
            row,
            [cell for cell in plan.every_cell if cell.row == row],
            folder,
            store,
            assigned,
            judges[row.model],
            tasks,
        )
        for row in plan.rows
    ]
    check_against_manifest(folder, results)
    return results


def _result(
    row: Row,
    cells: Sequence[Cell],
    folder: Path,
    store: Store,
    assigned: Mapping[str, tuple[str | None, str]],
    judges: Sequence[JudgeRecord],
    tasks: Mapping[str, TaskInfo],
) -> MethodResult:
    status = {cell: assigned.get(name_of(cell), (None, "failed: not finished")) for cell in cells}
    done = {cell: key for cell, (key, _) in status.items() if key}
    faults = [state for key, state in status.values() if state != "ok"]
    built = load_checkpoint(folder / "checkpoints" / row.build) if row.build else None
    name = f"{row.model} / {row.label} / seed {row.seed}"
    return MethodResult(
        model=row.model,
        method=row.label,
        stage=row.stage,
        seed=row.seed,
        status=faults[0] if faults else "ok",
        safety={cell.role: judged_samples(store, key, judges) for cell, key in done.items() if cell.role in ROLES},
        sweep=[
            sample
            for cell, key in done.items()
            if cell.role == "visage"
            for sample in _sweep(store, key, judges, tasks[cell.task])
        ],
        relapse=_relapse(row, done, folder, store, judges),
        metrics={name: value for cell, key in done.items() for name, value in _metric(tasks[cell.task], store, key)},
        documents={cell.task: store.metric(key)[1] for cell, key in done.items() if cell.role == "utility"},
        safety_examples=built.safety_examples if built else 0,
        minutes=built.minutes if built else None,
        peak_gb=built.peak_gb if built else None,
        model_digest=model_digest_of(
            name, [store.cell_parts(key) for cell, key in done.items() if cell.role != "relapse"]
        ),
    )


def _relapse(
    row: Row, done: Mapping[Cell, str], folder: Path, store: Store, judges: Sequence[JudgeRecord]
) -> dict[str, Relapse]:
    """The fine-tunings of a row's checkpoint by name, with what they cost where the run folder still knows it."""
    found: dict[str, dict[int, list[Sample]]] = {}
    for cell, key in done.items():
        if isinstance(cell, RelapseCell):
            found.setdefault(cell.attack, {})[cell.steps] = judged_samples(store, key, judges)
    costs = {name: load_attacked(attack_folder(folder, row, name)) for name in found}
    return {
        name: Relapse(samples, cost.minutes if cost else None, cost.peak_gb if cost else None)
        for (name, samples), cost in zip(found.items(), costs.values(), strict=True)
    }


def _metric(task: TaskInfo, store: Store, key: str) -> list[tuple[str, float]]:
    """The (column, value) of a task that is not judged: the loss in nats per token, rates in percent."""
    value, _ = store.metric(key)
    if value is None:
        return []
    if task.role == "eval_loss":
        return [("eval_loss", value)]
    return [(task.name, 100 * value if task.is_rate else value)]


def judged_samples(store: Store, key: str, judges: Sequence[JudgeRecord]) -> list[Sample]:
    """The outcome of every sample of a cell, from the verdicts in the store."""
    chosen = deciders(judges)
    found, categories = [], store.categories(key)
    for exchanges, given in with_verdicts(store, key, chosen):
        verdicts = [(judge.decides, known) for judge, known in zip(chosen, given, strict=True)]
        found += [
            _outcome(doc_id, exchange, verdicts, categories.get(doc_id, "")) for doc_id, exchange in exchanges.items()
        ]
    return found


def _sweep(store: Store, key: str, judges: Sequence[JudgeRecord], task: TaskInfo) -> list[SweepSample]:
    from ...judges.keywords import KeywordJudge

    exchanges = [Exchange(sample.prompt, sample.response) for sample in store.samples(key)]
    published = KeywordJudge(**task.metadata["keywords"]).judge(exchanges)
    return [
        SweepSample(
            *(point.prompt, point.direction, point.alpha, sample.outcome, bool(verdict.harmful)),
            *(point.logprob, point.tokens),
        )
        for point, sample, verdict in zip(store.points(key), judged_samples(store, key, judges), published, strict=True)
    ]


def _outcome(
    doc_id: int,
    exchange: Exchange,
    verdicts: Sequence[tuple[frozenset[str], dict[Exchange, Verdict]]],
    category: str = "",
) -> Sample:
    if any(exchange not in known for _, known in verdicts) or not verdicts:
        raise InputError(
            f"Response {doc_id} to '{exchange.prompt[:60]}' is not judged yet. Run `safebasin run` again to finish."
        )
    outcome, verdict = combine([(decides, known[exchange]) for decides, known in verdicts])
    return Sample(doc_id, outcome, verdict.refused, verdict.grade, verdict.maximal, category)
