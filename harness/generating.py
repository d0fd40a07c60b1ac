"""The generate stage of a run: every checkpoint answers what has no answer yet, those of one base model together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .pieces import Do, Piece
from .plan import Cell
from .stages.answering import Answering, Job, bar_of
from .stages.folder import name_of
from .stages.generate import cell_key, cell_parts
from .state import RunState

__all__ = ["AnswerPiece", "generate_all"]


@dataclass(frozen=True)
class AnswerPiece:
    """Checkpoints of one base model that answer on one worker, so that its engine starts once."""

    model: str
    jobs: tuple[Job, ...]
    number: int = 0
    """Of the parts of this model's work."""
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the model, and of the part."""
        return f"{self.model} answers {self.number}"

    @property
    def cells(self) -> int:
        """How many it answers."""
        return sum(len(job.cells) for job in self.jobs)

    def do(self, state: RunState) -> None:
        """Lets the checkpoints answer, but for those that have since."""
        jobs = [job for job in self.jobs if not all(state.store.has_cell(cell_key(parts)) for _, parts in job.cells)]
        units = {bar_of(job): len(job.cells) for job in self.jobs}

        def tick(bar: str, done: int, total: int) -> None:
            state.hear(bar, done, total, units.get(bar, 0))

        answering = Answering(
            state.models[self.model], state.tasks, state.engine, state.config, state.store, tick, state.shown.say
        )
        answering.run(jobs, lambda job, error: state.fail(job.name, error))

    def lost(self, state: RunState, reason: str) -> None:
        """Fails the rows that have not answered."""
        for job in self.jobs:
            if not all(state.store.has_cell(cell_key(parts)) for _, parts in job.cells):
                state.lose(job.name, reason)


def generate_all(state: RunState, do: Do) -> None:
    """Lets every checkpoint answer, and notes which answers are each row's."""
    stage = state.begin("answer")
    under_way: dict[str, set[str]] = {}
    taken: set[str] = set()

    def pieces() -> Iterator[AnswerPiece]:
        for spec in state.config.models:
            if spec.id not in state.models:
                continue
            jobs = _jobs(state, spec.id, taken)
            cells = sum(cell.model == spec.id for cell in state.plan.cells)
            found = cells - sum(len(job.cells) for job in jobs)
            stage.settle(found, found)
            shares = _shared(spec.id, jobs, state.config.resources.workers if state.config.executor != "local" else 1)
            under_way[spec.id] = {piece.name for piece in shares}
            yield from shares
            if not shares:
                _assign(state, spec.id)

    def done(piece: Piece) -> None:
        if isinstance(piece, AnswerPiece):
            stage.settle(piece.cells)
            under_way[piece.model].discard(piece.name)
            if not under_way[piece.model]:
                _assign(state, piece.model)

    do(state, pieces(), done)


def _shared(model: str, jobs: Sequence[Job], workers: int) -> list[AnswerPiece]:
    """The jobs in turns among so many workers."""
    parts = [tuple(jobs[number::workers]) for number in range(workers)]
    return [AnswerPiece(model, part, number) for number, part in enumerate(parts) if part]


def _ready(state: RunState, model: str) -> list[str | None]:
    builds = dict.fromkeys(cell.build for cell in state.plan.cells if cell.model == model)
    return [build for build in builds if build not in state.failures]


def _jobs(state: RunState, model: str, taken: set[str]) -> list[Job]:
    """What each checkpoint has not answered yet; of equal checkpoints the first one answers for all."""
    jobs: list[Job] = []
    for build_id in _ready(state, model):
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


def _assign(state: RunState, model: str) -> None:
    """Notes which cells stand for each checkpoint that has answered, or an equal one has."""
    for build_id in _ready(state, model):
        keys = {name_of(cell): cell_key(parts) for cell, parts in _cells(state, model, build_id)}
        if not all(state.store.has_cell(key) or key in state.cell_failures for key in keys.values()):
            state.failures.setdefault(build_id or model, "the checkpoint that it equals failed")
            continue
        for name, key in keys.items():
            reason = state.cell_failures.get(key)
            status = f"failed: {reason}" if reason else "ok"
            state.store.assign(state.plan.digest, name, None if reason else key, status)
