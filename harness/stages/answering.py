"""The generate stage: every checkpoint answers what it has not answered yet, in this process or in several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tasks.catalog import TaskInfo
from ..config.model import RunConfig
from ..engines.choice import EngineName
from ..store.store import Store
from .generate import Answered, cell_key, evaluate
from .memory import device_of, weight_bytes
from .models import ModelSource
from .targets import Target, target_for
from .workers import Ask, in_processes, processes_for

__all__ = ["Answering", "CellsFailed", "Job", "bar_of"]


@dataclass(frozen=True)
class Job:
    """What one checkpoint is to answer."""

    name: str
    """As progress shows it."""
    folder: Path | None
    """Of the checkpoint; None is the base."""
    digest: str
    """Of the checkpoint; empty for the base."""
    cells: tuple[tuple[str, Mapping[str, Any]], ...]
    """Name of each task, and the parts of its cell's key."""


def bar_of(job: Job) -> str:
    """What the bar of a job is called."""
    return f"{job.name}: answer"


class CellsFailed(InputError):
    """Some tasks of a checkpoint could not be asked; the others are answered and stored.

    Args:
        cells: key of each that failed -> its task, and why.
    """

    def __init__(self, cells: Mapping[str, tuple[str, str]]) -> None:
        super().__init__(cells)
        self.cells = dict(cells)

    def __str__(self) -> str:
        return "; ".join(f"{task}: {reason}" for task, reason in self.cells.values())


@dataclass(frozen=True)
class Answering:
    """Answers jobs by the checkpoints of one base model."""

    model: ModelSource
    tasks: Mapping[str, TaskInfo]
    engine: EngineName
    config: RunConfig
    store: Store
    tick: Callable[[str, int, int], None]
    """Called with the name of a bar, what is done, and how much there is."""
    say: Callable[[str], None]
    """Called with what a user should know."""

    def run(self, jobs: Sequence[Job], fail: Callable[[Job, Exception], None]) -> None:
        """Lets each checkpoint answer; one that fails does not stop the others.

        Args:
            jobs: one per checkpoint, no two with a cell in common.
            fail: called with a job that failed, and why.
        """
        if self._processes(len(jobs)) > 1:
            for number, error in in_processes(_Worker(self), jobs, self._processes(len(jobs)), self._serve):
                if error is not None:
                    fail(jobs[number], error)
            return
        folders = [job.folder for job in jobs]
        with target_for(self.engine, self.model, folders, self.config, self.say) as target:
            for job in jobs:
                try:
                    self.answer(job, target, self.store)
                except Exception as error:  # noqa: BLE001  # one failure must not cost the others their results
                    fail(job, error)

    def answer(self, job: Job, target: Target, store: Any) -> None:
        """Answers one job; its cells are then in the store.

        Raises:
            CellsFailed: some are not, because their task cannot be asked.
        """
        identity = {"weights": self.model.digest, "adapter": job.digest, "dtype": self.config.dtype}
        bar = bar_of(job)
        with target.serving(job.folder, identity, store, lambda done, total: self.tick(bar, done, total)) as engine:
            found, failed = self._evaluated(job, engine)
        for name, parts in job.cells:
            if name in found:
                done = found[name]
                store.add_cell(cell_key(parts), parts, done.metric, done.samples, done.n, done.points, done.categories)
        if failed:
            raise CellsFailed({cell_key(parts): (name, failed[name]) for name, parts in job.cells if name in failed})

    def _evaluated(self, job: Job, engine: Any) -> tuple[dict[str, Answered], dict[str, str]]:
        """What the answers to each task come to, and why those failed that did: one by one where not all can be asked.

        Raises:
            InputError: none could.
        """
        names = [name for name, _ in job.cells]
        try:
            return evaluate(engine, [self.tasks[name] for name in names], self.model, self.config), {}
        except InputError:
            if len(names) == 1:
                raise
        found: dict[str, Answered] = {}
        failed: dict[str, str] = {}
        for name in names:
            try:
                found |= evaluate(engine, [self.tasks[name]], self.model, self.config)
            except InputError as error:  # a prompt that this model cannot take, say
                failed[name] = " ".join(str(error).split())
        if not found:
            raise InputError(next(iter(failed.values())))
        return found, failed

    def _processes(self, jobs: int) -> int:
        weights = weight_bytes(Path(self.model.location), self.config.dtype)
        device = device_of(self.config) if self.engine == "hf" else self.engine
        return processes_for(jobs, self.config.processes, weights, device)

    def _serve(self, what: str, *given: Any) -> Any:
        """Does what a worker asks for: shows how far it is, or opens the store, which one process writes alone."""
        return getattr(self if what in ("tick", "say") else self.store, what)(*given)


class _Worker:
    """The work of a process; its target stays loaded from job to job."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._targets: list[Any] = []

    def __call__(self, job: Job, ask: Ask) -> None:
        here = self._answering
        own = Answering(
            here.model, here.tasks, here.engine, here.config, here.store,
            lambda *how: ask("tick", *how), lambda line: ask("say", line),
        )  # fmt: skip
        if not self._targets:
            self._targets = [target_for(own.engine, own.model, [job.folder], own.config, own.say)]
            self._targets += [self._targets[0].__enter__()]
        own.answer(job, self._targets[1], _StoreOfParent(ask))


class _StoreOfParent:
    """What a worker needs of the store."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def answers(self, keys: Sequence[str]) -> Any:
        """See `Store`."""
        return self._ask("answers", keys)

    def add_answers(self, kind: str, rows: Any) -> None:
        """See `Store`."""
        self._ask("add_answers", kind, list(rows))

    def add_cell(self, *cell: Any) -> None:
        """See `Store`."""
        self._ask("add_cell", *cell)
