"""What the stages of one run share, and how a failure of one piece of it is kept from the others."""

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from rich.markup import escape

from ..errors import InputError, StorageError, check_disk
from ..judges.base import Judge, RemoteJudge
from ..restore.method import Tick
from ..tasks.catalog import TaskInfo
from .config.model import RunConfig
from .engines.choice import EngineName
from .plan import Plan
from .stages.answering import CellsFailed
from .stages.build import Checkpoint
from .stages.dose import Dose
from .stages.judge import remote_of
from .stages.models import ModelSource
from .store.store import Store
from .terminal.progress import Bars
from .terminal.whole import Stage, Whole

__all__ = ["RunState"]


@dataclass
class RunState:
    """What the stages of one run share."""

    plan: Plan
    config: RunConfig
    folder: Path
    store: Store
    shown: Bars
    tasks: Mapping[str, TaskInfo]
    engine: EngineName
    models: dict[str, ModelSource] = field(default_factory=dict)
    judges: dict[int, list[Judge]] = field(default_factory=dict)
    """By the sandbox world whose models they judge; world 0 stands for models of no world too."""
    doses: dict[tuple[str, int], Dose] = field(default_factory=dict)
    """By model and seed."""
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    cell_failures: dict[str, str] = field(default_factory=dict)
    """Key of a cell that failed alone, while others of its row did not -> reason."""
    bad_input: bool = False
    begun: set[str] = field(default_factory=set)
    """Builds that were not there already."""
    whole: Whole = field(default_factory=lambda: Whole((), time.monotonic))
    stage: Stage = field(default_factory=lambda: Stage("", 0, "", "", None))
    """The one under way."""

    @property
    def remote(self) -> list[RemoteJudge]:
        """The judges on other machines."""
        return remote_of(chain.from_iterable(self.judges.values()))

    def ticking(self, name: str) -> Tick:
        """Progress of a piece of work, under its name."""
        return lambda what, done, total: self.shown.update(f"{name}: {what}", done, total)

    def begin(self, stage: str) -> Stage:
        """Begins a stage, and shows how far the run is."""
        self.stage = self.whole.begin(stage)
        self.shown.tell_whole()
        return self.stage

    def hear(self, bar: str, done: int, total: int, units: float) -> None:
        """Shows how far a piece of the stage is that comes to so many of its units."""
        self.stage.hear(bar, done, total, units)
        self.shown.update(bar, done, total)

    def fail(self, what: str, error: Exception) -> None:
        """Notes a failure; the traceback of an unexpected one goes to errors.log.

        Raises:
            StorageError: the disk is full, or the store fails: then nothing else would succeed.
        """
        if isinstance(error, StorageError):
            raise error
        check_disk(error)
        if isinstance(error, CellsFailed):
            for key, (task, reason) in error.cells.items():
                self.failures[f"{what}: {task}"] = self.cell_failures[key] = reason
            self.bad_input = True
            tasks = escape(", ".join(task for task, _ in error.cells.values()))
            self.shown.say(f"[red]{tasks} of {escape(what)} failed[/red]")
            return
        self.failures[what] = " ".join(str(error).split()) or type(error).__name__
        self.bad_input |= isinstance(error, InputError)
        if not isinstance(error, InputError):
            try:
                with (self.folder / "errors.log").open("a", encoding="utf-8") as log:
                    log.write(f"{what}\n{''.join(traceback.format_exception(error))}\n")
            except OSError as full:
                check_disk(full, self.folder / "errors.log")
                raise
        self.shown.say(f"[red]{escape(what)} failed[/red]; the rest goes on")

    def lose(self, what: str, reason: str) -> None:
        """Notes that something could not be done at all, through no fault of its input."""
        self.failures[what] = reason
        self.shown.say(f"[red]{escape(what)} failed[/red]; the rest goes on")
