"""A run: build every adapter, let every checkpoint answer, judge all answers, write the leaderboard.

Whatever is finished is found again by the digest of what made it, so a run that was stopped goes on where it was.
"""

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..errors import InputError
from ..restore.models.chat import writing_date
from ..restore.models.thinking import ending_thinking
from ..results.export import replace_text
from .config.data import said
from .config.model import RunConfig
from .config.naming import slug
from .engines.choice import choose
from .plan import BuildStep, Cell, make_plan
from .relapsing import check_relapse, relapse_all
from .stages.align import model_of
from .stages.answering import Answering, Job, bar_of
from .stages.build import Checkpoint, build
from .stages.dose import Dose, find_dose
from .stages.estimates import rough
from .stages.folder import MANIFEST, PLAN, check_kept, name_of, open_store
from .stages.generate import JUDGED, cell_key, cell_parts, task_infos
from .stages.judge import OnProgress, judge_cells, judged_as, judges_of, processes_of, spent_by
from .stages.leaks import left_out
from .stages.manifest import write_manifest
from .stages.memory import judge_bytes, memory_plan
from .stages.models import described
from .stages.report import report
from .stages.worlds import build_worlds, world_in
from .state import RunState
from .store.files import locked, make_folder, sweep
from .terminal.console import safe_console
from .terminal.progress import bars
from .terminal.quiet import quiet
from .terminal.whole import Stage, Whole

__all__ = ["RunResult", "run"]


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    folder: Path
    failures: Mapping[str, str]
    """Build id -> reason."""
    bad_input: bool
    """Whether some failure was the input's fault."""

    @property
    def exit_code(self) -> int:
        """0: all done; 1: some cell failed; 2: some cell failed because of bad input."""
        return 0 if not self.failures else 2 if self.bad_input else 1


def run(config: RunConfig, folder: Path, console: Console | None = None, store: Path | None = None) -> RunResult:
    """Runs a leaderboard in `folder`, or goes on with it.

    Args:
        config: a validated config (`load_config`).
        folder: the run folder; made where it does not exist.
        console: where progress and the table go.
        store: folder of a store shared with other runs.

    Raises:
        InputError: folder or store cannot be written, another process works in the folder, or a model cannot be had.
        StorageError: the disk is full, or the store is damaged; what was finished is kept.
    """
    console = console or safe_console()
    plan = make_plan(config)
    make_folder(folder)
    quiet()
    with locked(folder, wait=False), writing_date(config.date), ending_thinking(config.think_end_token):
        sweep(folder / "checkpoints")
        check_kept(folder, store)
        replace_text(folder / PLAN, plan.to_json())
        opened = open_store(folder, store)
        try:
            with bars(console) as shown:
                state = RunState(plan, config, folder, opened, shown, task_infos(config), choose(config))
                for line in (*said(config), *left_out(config)):
                    shown.say(escape(line))
                _prepare(state)
                for line in memory_plan(state.models, config, state.tasks.values(), state.engine):
                    shown.say(line)
                state.whole = shown.follow(_whole(state))
                _build_all(state)
                _generate_all(state)
                relapse_all(state)
                _judge_all(state)
                state.whole.end()
                shown.tell_whole()
                _write_manifest(state)
        finally:
            opened.close()
    report(folder, console, store)
    return RunResult(folder, state.failures, state.bad_input)


def _prepare(state: RunState) -> None:
    """Builds the sandbox where it is needed, finds models and judges, links the models in the run folder for others."""
    build_worlds(state.config, state.shown)
    make_folder(state.folder / "models")
    for spec in state.config.models:
        try:
            state.models[spec.id] = source = model_of(spec, state.config, state.ticking(f"align {spec.id}"))
        except InputError as error:
            if len(state.config.models) == 1:
                raise
            state.fail(spec.id, error)
            continue
        link = state.folder / "models" / slug(spec.id)
        link.unlink(missing_ok=True)
        link.symlink_to(Path(source.location).resolve())
    check_relapse(state)
    if any(cell.role in JUDGED for cell in state.plan.cells):
        worlds = sorted({world_in(state.folder, name) for name in state.models})
        state.judges = {world: judges_of(state.config, world) for world in worlds}
        for judge in itertools.chain(*state.judges.values()):
            _ = judge.identity  # one that cannot be had is told now, not after all responses were generated
        for judge in state.remote:
            state.shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")


def _whole(state: RunState) -> Whole:
    """The stages of the run, with what each will take, about."""
    plan, guesses = state.plan, rough(state.plan, state.models)
    judges = sum(len(own) for own in state.judges.values())
    stages = [
        Stage("build", len(plan.builds), "checkpoints", "", guesses.build),
        Stage("answer", len(plan.cells), "cells", "responses", guesses.answer),
        Stage("relapse", plan.attacks, "fine-tunings", "", guesses.relapse),
        Stage("judge", judges, "judges", "verdicts", guesses.judge),
    ]
    return Whole(stages, time.monotonic)


def _build_all(state: RunState) -> None:
    stage = state.begin("build")
    for step in state.plan.builds:
        _build_one(state, step)
        begun = step.id in state.begun
        stage.settle(1, found=0 if begun else 1)
        if begun:
            state.shown.tell_whole()


def _build_one(state: RunState, step: BuildStep) -> None:
    if step.model not in state.models:
        state.failures[step.id] = state.failures[step.model]
        return
    if step.parent in state.failures:
        state.failures[step.id] = f"its start, {step.parent}, failed"
        return
    try:
        state.checkpoints[step.id] = _build(state, step)
    except Exception as error:  # noqa: BLE001  # one method's failure must not cost the others their results
        state.fail(step.id, error)


def _build(state: RunState, step: BuildStep) -> Checkpoint:
    return build(
        step,
        state.config,
        state.models[step.model],
        state.folder / "checkpoints" / step.id,
        state.checkpoints[step.parent] if step.parent else None,
        state.ticking(step.id),
        on_start=lambda: state.begun.add(step.id),
        dose=_dose(state, step),
        say=lambda line: state.shown.say(f"[yellow]warning[/yellow]: {escape(line)}"),
    )


def _dose(state: RunState, step: BuildStep) -> Dose | None:
    """How long a build's model is fine-tuned with its seed, where the config leaves that to a target."""
    if state.config.target_hrr(step.model) is None:
        return None
    if (step.model, step.seed) not in state.doses:
        name = f"{slug(step.model)}-seed{step.seed}"
        dose = find_dose(
            state.config,
            state.models[step.model],
            step.seed,
            state.folder / "doses" / f"{name}.json",
            state.ticking(name),
        )
        state.doses[step.model, step.seed] = dose
        if dose.warning:
            state.shown.say(f"[yellow]warning[/yellow]: {escape(f'{name}: {dose.warning}')}")
    return state.doses[step.model, step.seed]


def _generate_all(state: RunState) -> None:
    stage = state.begin("answer")
    for spec in state.config.models:
        if spec.id not in state.models:
            continue
        builds = dict.fromkeys(cell.build for cell in state.plan.cells if cell.model == spec.id)
        ready = [build for build in builds if build not in state.failures]
        jobs = _jobs(state, spec.id, ready)
        cells = sum(cell.model == spec.id for cell in state.plan.cells)
        found = cells - sum(len(job.cells) for job in jobs)
        stage.settle(found, found)
        answering = Answering(
            state.models[spec.id], state.tasks, state.engine, state.config, state.store,
            _answered(state, stage, jobs), state.shown.say,
        )  # fmt: skip
        answering.run(jobs, lambda job, error: state.fail(job.name, error))
        stage.settle(cells - found)
        for build_id in ready:
            _assign(state, spec.id, build_id)


def _answered(state: RunState, stage: Stage, jobs: Sequence[Job]) -> OnProgress:
    """Shows how far a job is, and the run with it."""
    units = {bar_of(job): len(job.cells) for job in jobs}

    def tick(bar: str, done: int, total: int) -> None:
        stage.hear(bar, done, total, units.get(bar, 0))
        state.shown.update(bar, done, total)

    return tick


def _jobs(state: RunState, model: str, builds: Sequence[str | None]) -> list[Job]:
    """What each checkpoint has not answered yet; of equal checkpoints the first one answers for all."""
    jobs: list[Job] = []
    taken: set[str] = set()
    for build_id in builds:
        parts = {cell_key(own): (cell.task, own) for cell, own in _cells(state, model, build_id)}
        missing = [key for key in parts if key not in taken and not state.store.has_cell(key)]
        taken.update(missing)
        checkpoint = state.checkpoints[build_id] if build_id else None
        folder, digest = (checkpoint.folder, checkpoint.digest) if checkpoint else (None, "")
        if missing:
            jobs.append(Job(build_id or model, folder, digest, tuple(parts[key] for key in missing)))
    return jobs


def _cells(state: RunState, model: str, build_id: str | None) -> list[tuple[Cell, dict[str, Any]]]:
    """The cells of a checkpoint, each with what its key is made from."""
    digest = state.checkpoints[build_id].digest if build_id else ""
    cells = [cell for cell in state.plan.cells if cell.model == model and cell.build == build_id]
    source = state.models[model]
    return [(cell, cell_parts(state.tasks[cell.task], source, digest, state.config, state.engine)) for cell in cells]


def _assign(state: RunState, model: str, build_id: str | None) -> None:
    """Notes which cells stand for a checkpoint, if it has answered or an equal one has."""
    keys = {name_of(cell): cell_key(parts) for cell, parts in _cells(state, model, build_id)}
    if not all(state.store.has_cell(key) or key in state.cell_failures for key in keys.values()):
        state.failures.setdefault(build_id or model, "the checkpoint that it equals failed")
        return
    for name, key in keys.items():
        reason = state.cell_failures.get(key)
        state.store.assign(state.plan.digest, name, None if reason else key, f"failed: {reason}" if reason else "ok")


def _judge_all(state: RunState) -> None:
    stage = state.begin("judge")
    assigned = state.store.assignments(state.plan.digest)
    for world, judges in state.judges.items():
        judged = [
            cell
            for cell in state.plan.every_cell
            if cell.role in JUDGED and world_in(state.folder, cell.model) == world
        ]
        keys = [
            assigned[name_of(cell)][0]
            for cell in judged
            if cell.build not in state.failures and name_of(cell) in assigned
        ]
        if present := [key for key in keys if key]:
            judge_cells(
                judges,
                present,
                judged_as(state.plan.digest, world),
                state.store,
                _judging(state, stage, world),
                processes_of(state.config, [judge_bytes(judge, world) for judge in state.config.judges]),
            )
    for judge in state.remote:
        state.shown.say(escape(spent_by(judge)))


def _judging(state: RunState, stage: Stage, world: int) -> OnProgress:
    where = f" of world {world}" if len(state.judges) > 1 else ""

    def tick(name: str, done: int, total: int) -> None:
        bar = f"judge{where}: {name}"
        stage.hear(bar, done, total, 1)
        state.shown.update(bar, done, total)

    return tick


def _write_manifest(state: RunState) -> None:
    for cell in state.plan.every_cell:
        reason = state.failures.get(cell.build or cell.model)
        if reason:
            state.store.assign(state.plan.digest, name_of(cell), None, f"failed: {reason}")
    write_manifest(
        state.folder / MANIFEST,
        {
            "plan": state.plan.digest,
            "seeds": list(state.config.seeds),
            "models": described(state.models),
            "checkpoints": {name: checkpoint.digest for name, checkpoint in state.checkpoints.items()},
            "doses": {f"{slug(m)}-seed{seed}": asdict(dose) for (m, seed), dose in state.doses.items()},
            "judges": [
                judge.identity
                for world in state.judges
                for judge in state.store.judges(judged_as(state.plan.digest, world))
            ],
            "remote_judges": {judge.identity: judge.spent for judge in state.remote},
            "engine": state.engine,
            "left_out": left_out(state.config),
            "failures": state.failures,
            "environment": {"SAFEBASIN_CACHE": bool(os.environ.get("SAFEBASIN_CACHE"))},
        },
    )
