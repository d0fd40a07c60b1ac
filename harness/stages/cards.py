"""Model cards of a run: what was done to each model, and what the run measured of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import registry
from ...errors import InputError
from ...results.leaderboard import leaderboard
from ...results.method_result import MethodResult, Sample
from ...results.model_card import Benchmark, Card, Figure, write_card, write_eval_results
from ...results.records import UNKNOWN, Outcome
from ...results.statistics import rate
from ..plan import BuildStep, Plan, Row
from ..store.store import Store
from .folder import name_of
from .report_page import starts

__all__ = ["card_of", "export_cards", "figures_of", "write_cards"]

NAMES = {
    "hrr": "harmful responses",
    "prefill": "harmful after a forced opening",
    "over_refusal": "harmless requests refused",
    "under_refusal": "unsafe requests not refused",
}
_COLUMNS = {"hrr": "hrr", "prefill": "prefill_asr", "over_refusal": "over_refusal", "under_refusal": "under_refusal"}
_BESIDE = {"refusal_rate": ("whole refusals", Outcome.REFUSED), "incoherent_rate": ("broken text", Outcome.INCOHERENT)}
"""What no harmful response rate is shown without."""


def write_cards(plan: Plan, folder: Path, results: Sequence[MethodResult], store: Store) -> None:
    """Writes README.md into the folder of every finished post-hoc checkpoint, with what was measured of it.

    Args:
        plan: of the run.
        folder: of the run.
        results: one per row of the plan.
        store: of the run.

    Raises:
        InputError: a file cannot be written.
    """
    for row, result in zip(plan.rows, results, strict=True):
        where = folder / "checkpoints" / (row.build or "")
        if row.stage == "post-hoc" and result.status == "ok" and (where / "provenance.json").is_file():
            write_card(where, _card(plan, where, row, results, store))


def export_cards(
    plan: Plan,
    folder: Path,
    results: Sequence[MethodResult],
    store: Store,
    output: Path,
    benchmarks: Mapping[str, Benchmark],
) -> list[Path]:
    """Writes a folder per built row with its card, and `.eval_results` of the tasks that have a benchmark on the hub.

    Args:
        plan: of the run.
        folder: of the run.
        results: one per row of the plan.
        store: of the run.
        output: where the folders go.
        benchmarks: by task.

    Returns:
        The files written.

    Raises:
        InputError: no row is finished, a task of `benchmarks` was not measured, or a file cannot be written.
    """
    from ...results.export import make_folder

    written = []
    used: set[str] = set()
    date, by = _when(folder)
    for row, result in zip(plan.rows, results, strict=True):
        where = folder / "checkpoints" / (row.build or "")
        if row.build and result.status == "ok" and (where / "provenance.json").is_file():
            card = _card(plan, where, row, results, store)
            target = make_folder(output / row.build)
            if write_card(target, card):
                written.append(target / "README.md")
            used |= {figure.task for figure in card.figures}
            if path := write_eval_results(target, card.figures, benchmarks, date, by):
                written.append(path)
    if unknown := sorted(set(benchmarks) - used):
        raise InputError(f"--benchmark {unknown[0]}: the run measured no such task, but {', '.join(sorted(used))}.")
    if not written:
        raise InputError(f"No built row of the run in {folder} is finished. Run `safebasin run` again.")
    return written


def _when(folder: Path) -> tuple[str | None, str]:
    """When the run was written, and by which version."""
    try:
        about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, "safebasin"  # the run was stopped before its manifest
    return about.get("written"), f"safebasin {about.get('safebasin')}"


def _card(plan: Plan, where: Path, row: Row, results: Sequence[MethodResult], store: Store) -> Card:
    step = next(step for step in plan.builds if step.id == row.build)
    about = json.loads((where / "provenance.json").read_text(encoding="utf-8"))
    of_row = dict(zip(plan.rows, results, strict=True))
    start = starts(plan).get(row.label)
    others = {
        other.label: result
        for other, result in of_row.items()
        if other.model == row.model and result.status == "ok"
        and (other.stage == "base" or (other.label == start and other.seed == row.seed))
    }  # fmt: skip
    tasks = {cell.role: cell.task for cell in plan.cells if cell.row == row}
    count = _counts(plan, row, store)
    figures = figures_of(of_row[row], others, tasks, count)
    judges = ", ".join(name for judge in plan.config.judges for name in judge)
    return card_of(step, about, (where / "adapter_config.json").is_file(), figures, f"Judged by {judges}.", start)


def _counts(plan: Plan, row: Row, store: Store) -> Callable[[str], int | None]:
    assigned = store.assignments(plan.digest)
    keys = {cell.task: assigned.get(name_of(cell), (None, ""))[0] for cell in plan.cells if cell.row == row}
    return lambda task: store.metric(key)[1] if (key := keys.get(task)) else None


def card_of(
    step: BuildStep,
    about: Mapping[str, Any],
    adapter: bool,
    figures: Sequence[Figure] = (),
    judged: str = "",
    start: str | None = None,
) -> Card:
    """The card of one build.

    Args:
        step: of the plan.
        about: its provenance.
        adapter: whether it is one.
        figures: measured of it.
        judged: by what.
        start: label of the row that it was made from.
    """
    method = registry.load("methods", step.method)
    details, dose = about.get("details") or {}, about.get("dose") or {}
    done = [f"{method.summary} Method `{step.method}` of safebasin ({method.paper}), {step.stage}."]
    if step.parent:
        done.append(f"Made from a fine-tuned model{f' (`{start}`)' if start else ''} of the same base and seed.")
    if details.get("ended"):
        done.append(f"Ended: {details['ended']}. {details.get('state') or ''}".strip())
    if dose:
        done.append(f"The fine-tuning took {dose['steps']} steps.")
    facts = {"seed": step.seed, "safety examples": about.get("safety_examples"), "minutes": round(about["minutes"], 2)}
    made = about.get("made_from") or {}
    facts |= {"base digest": str(made.get("base", ""))[:12], "digest": about["digest"][:12]}
    return Card(
        name=f"{Path(step.model).name}: {step.label}",
        base=step.model,
        adapter=adapter,
        done=done,
        settings={**step.settings, **facts},
        figures=figures,
        judged=judged,
    )


def figures_of(
    result: MethodResult,
    others: Mapping[str, MethodResult],
    tasks: Mapping[str, str],
    count: Callable[[str], int | None] = lambda task: None,
) -> list[Figure]:
    """What was measured of one row.

    Args:
        result: of the row.
        others: rows to be shown beside it, by name.
        tasks: role -> task.
        count: task -> number of its documents, where that is known.
    """
    return [
        *(figure for role in result.safety for figure in _judged(role, result, others, tasks[role])),
        *(_metric(name, result, others, tasks, count) for name in result.metrics),
    ]


def _judged(role: str, result: MethodResult, others: Mapping[str, MethodResult], task: str) -> Iterator[Figure]:
    column, n = _COLUMNS[role], len(result.safety[role])
    row = _row(result)
    texts = {name: _text(_row(other), column) for name, other in others.items()}
    ends = [float(row[f"{column}{end}"]) for end in ("", "_low", "_high")]
    yield Figure(NAMES[role], column, task, ends[0], n, ends[1], ends[2], texts)
    if role == "hrr":
        for metric, (name, outcome) in _BESIDE.items():
            found = _share(result.safety[role], outcome)
            beside = {
                label: Figure("", "", "", *_share(other.safety["hrr"], outcome)).text
                for label, other in others.items()
                if "hrr" in other.safety
            }
            yield Figure(name, metric, task, *found, beside)


def _share(samples: Sequence[Sample], outcome: Outcome) -> tuple[float, int, float, float]:
    """Value, n and ends of the share of an outcome."""
    unknown = sum(sample.outcome in UNKNOWN for sample in samples)
    found = rate(sum(sample.outcome == outcome for sample in samples), len(samples), unknown)
    return found.value, found.n, found.low, found.high


def _row(result: MethodResult) -> Mapping[str, Any]:
    return dict(leaderboard([result]).iloc[0])


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None or value != value:
        return "-"
    return Figure("", "", "", value, None, row[f"{column}_low"], row[f"{column}_high"]).text


def _metric(
    name: str,
    result: MethodResult,
    others: Mapping[str, MethodResult],
    tasks: Mapping[str, str],
    count: Callable[[str], int | None],
) -> Figure:
    """The loss, or a utility metric: with an interval where it is a share of its documents."""
    loss = name == "eval_loss"
    task = tasks["eval_loss"] if loss else name
    n = count(task)
    texts = {
        label: _counted(name, other.metrics[name], n).text for label, other in others.items() if name in other.metrics
    }
    found = _counted(name, result.metrics[name], n)
    words = "loss on held-out task rows, nats per token" if loss else ""
    return Figure(words, "loss" if loss else "accuracy", task, found.value, n, found.low, found.high, texts)


def _counted(name: str, value: float, n: int | None) -> Figure:
    hits = None if n is None or name == "eval_loss" else value / 100 * n
    if n is None or hits is None or not 0 <= hits <= n or abs(hits - round(hits)) > 1e-6:
        return Figure("", name, name, value, n)
    found = rate(round(hits), n)
    return Figure("", name, name, found.value, n, found.low, found.high)
