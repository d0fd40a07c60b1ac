"""The relapse stage of a run: every checkpoint is fine-tuned again, and answers on the way (`tasks.relapse`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config.model import RunConfig
from .config.relapse import RelapseConfig
from .pieces import Do, Piece
from .plan import RelapseCell, Row
from .stages.answering import Answering, Job
from .stages.folder import name_of
from .stages.generate import cell_key, cell_parts
from .stages.relapse import Attack, attack_folder, drop_weights, relapse_rows, weights_folder
from .state import RunState

__all__ = ["RelapsePiece", "check_relapse", "relapse_all"]


@dataclass(frozen=True)
class _Asked:
    """What is asked of a checkpoint after some steps of a fine-tuning."""

    cell: RelapseCell
    folder: Path | None
    """Of the checkpoint then; None is the base."""
    digest: str
    parts: Mapping[str, Any]
    """What the key of its answers is made from."""

    @property
    def key(self) -> str:
        """Of its answers."""
        return cell_key(self.parts)

    @property
    def job(self) -> Job:
        """The work of answering."""
        after = f"{self.cell.steps} steps of {self.cell.attack}" if self.cell.steps else "as it is"
        name = f"{self.cell.build or self.cell.model}, {after}"
        return Job(name, self.folder, self.digest, ((self.cell.task, self.parts),))


def check_relapse(state: RunState) -> None:
    """Asks for all rows that checkpoints will be fine-tuned on again, before anything is trained.

    Raises:
        InputError: they cannot be had, or the run's tasks measure requests of the harmful ones.
    """
    settings = state.config.tasks.relapse
    if settings is None:
        return
    for name in settings.attacks:
        for model in state.models.values():
            relapse_rows(name, settings, state.config, model)


@dataclass(frozen=True)
class RelapsePiece:
    """The fine-tunings of one row's checkpoint, and its answers on the way."""

    row: Row
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the checkpoint."""
        return f"{self.row.build or self.row.model} again"

    def do(self, state: RunState) -> None:
        """Trains one after the other; all answer together; then their weights go."""
        settings = state.config.tasks.relapse
        if settings is None or self.row.model not in state.models:
            return
        if (self.row.build or self.row.model) not in state.failures:
            asked = [one for name in settings.attacks for one in _trained(state, settings, self.row, name)]
            _answer(state, _config(state.config, settings), self.row, asked)

    def lost(self, state: RunState, reason: str) -> None:
        """See `Piece`."""
        state.lose(self.name, reason)
        cells = [cell for cell in state.plan.relapses if (cell.model, cell.build) == (self.row.model, self.row.build)]
        known = state.store.assignments(state.plan.digest)
        for name in (name_of(cell) for cell in cells):
            if name not in known:
                state.store.assign(state.plan.digest, name, None, f"failed: {reason}")


def relapse_all(state: RunState, do: Do) -> None:
    """Fine-tunes each checkpoint again, lets it answer after each measured number of steps, and assigns the answers."""
    settings = state.config.tasks.relapse
    if settings is None:
        return
    stage = state.begin("relapse")
    first: dict[tuple[str, str | None], Row] = {}
    for row in state.plan.rows:
        first.setdefault((row.model, row.build), row)

    def done(piece: Piece) -> None:
        stage.settle(len(settings.attacks))
        state.shown.tell_whole()

    do(state, map(RelapsePiece, first.values()), done)


def _config(config: RunConfig, settings: RelapseConfig) -> RunConfig:
    """The run's, with as many prompts as are asked after a fine-tuning."""
    limits = [limit for limit in (config.limit, settings.prompts) if limit]
    return config.model_copy(update={"limit": min(limits, default=None)})


def _trained(state: RunState, settings: RelapseConfig, row: Row, name: str) -> list[_Asked]:
    """One fine-tuning of a row's checkpoint: all that is asked on the way; nothing where it failed."""
    start = state.checkpoints[row.build] if row.build else None
    model, config = state.models[row.model], _config(state.config, settings)
    attack = Attack(
        name, settings, state.config, model, start, row.seed, attack_folder(state.folder, row, name)
    )  # fmt: skip

    def asked(digests: Mapping[int, str]) -> list[_Asked]:
        known = {0: start.digest if start else "", **digests}
        folders = {steps: weights_folder(attack.folder, steps) for steps in digests}
        folders |= {0: start.folder} if start else {}
        return [
            _Asked(
                cell, folders.get(cell.steps), known[cell.steps],
                cell_parts(state.tasks[cell.task], model, known[cell.steps], config, state.engine),
            )
            for cell in _cells(state, row, name)
        ]  # fmt: skip

    def needed(digests: Mapping[int, str]) -> set[int]:
        return {one.cell.steps for one in asked(digests) if one.cell.steps and not state.store.has_cell(one.key)}

    title = f"{row.build or row.model}: {name}"
    try:
        return asked(attack.made(needed, state.ticking(title)).digests)
    except Exception as error:  # noqa: BLE001  # one failure must not cost the others their results
        state.fail(title, error)
        for cell in _cells(state, row, name):
            state.store.assign(state.plan.digest, name_of(cell), None, f"failed: {state.failures[title]}")
        return []


def _cells(state: RunState, row: Row, name: str) -> list[RelapseCell]:
    """Of all rows with the same checkpoint."""
    wanted = (row.model, row.build, name)
    return [cell for cell in state.plan.relapses if (cell.model, cell.build, cell.attack) == wanted]


def _answer(state: RunState, config: RunConfig, row: Row, asked: Sequence[_Asked]) -> None:
    """Lets the checkpoints answer what the store lacks, assigns the answers, and removes the weights."""
    missing = {one.key: one for one in asked if not state.store.has_cell(one.key)}
    jobs = [one.job for one in missing.values()]
    answering = Answering(
        state.models[row.model], state.tasks, state.engine, config, state.store, state.shown.update, state.shown.say
    )
    reasons: dict[str, str] = {}

    def failed(job: Job, error: Exception) -> None:
        state.fail(job.name, error)
        reasons[cell_key(job.cells[0][1])] = f"failed: {state.failures[job.name]}"

    if jobs:
        answering.run(jobs, failed)
    for one in asked:
        done = state.store.has_cell(one.key)
        status = "ok" if done else reasons.get(one.key, "failed: not finished")
        state.store.assign(state.plan.digest, name_of(one.cell), one.key if done else None, status)
        if done and one.cell.steps:
            drop_weights(attack_folder(state.folder, row, one.cell.attack), one.cell.steps)
