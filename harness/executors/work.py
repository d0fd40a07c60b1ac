"""What is done on a worker: one piece of a run, for a driver that is elsewhere."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import InputError, StorageError, sendable
from ...restore.models.chat import writing_date
from ...restore.models.thinking import ending_thinking
from ..engines.choice import EngineName
from ..pieces import Piece
from ..plan import Plan
from ..stages.build import Checkpoint
from ..stages.dose import Dose
from ..stages.generate import task_infos
from ..stages.models import ModelSource
from ..state import RunState
from ..store.digests import code_digest
from ..terminal.quiet import quiet
from .part import Part

__all__ = ["TOKEN", "Order", "Outcome", "code_here", "order_of", "work"]

TOKEN = "token"
"""File by which a worker tells that it sees the driver's folder."""


@dataclass(frozen=True)
class Order:
    """What a worker is told besides its piece: all that pieces before it came to."""

    plan: Plan
    folder: Path
    """Of the run."""
    parts: Path
    """Folder where parts are kept."""
    token: str
    code: str
    """Digest of the package's source and of what it computes with, as the driver has them."""
    engine: EngineName
    models: Mapping[str, ModelSource]
    doses: Mapping[tuple[str, int], Dose]
    checkpoints: Mapping[str, Checkpoint]
    failures: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """What a piece came to, but for what is in its part; the whole of each, as the state has them afterwards."""

    engine: EngineName
    models: Mapping[str, ModelSource] = field(default_factory=dict)
    doses: Mapping[tuple[str, int], Dose] = field(default_factory=dict)
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    cell_failures: Mapping[str, str] = field(default_factory=dict)
    begun: frozenset[str] = frozenset()
    bad_input: bool = False
    error: Exception | None = None
    """That ended the piece: an `InputError`, a `StorageError`, or a RuntimeError with another's traceback."""

    def into(self, state: RunState) -> None:
        """Adds it to the driver's state."""
        state.engine = self.engine
        state.models.update(self.models)
        state.doses.update(self.doses)
        state.checkpoints.update(self.checkpoints)
        state.failures.update(self.failures)
        state.cell_failures.update(self.cell_failures)
        state.begun |= self.begun
        state.bad_input |= self.bad_input


class _FarState(RunState):
    """The state on a worker: store and bars are its part."""

    def hear(self, bar: str, done: int, total: int, units: float) -> None:
        told: Any = self.shown
        told.hear(bar, done, total, units)


def order_of(state: RunState, parts: Path, token: str, code: str) -> Order:
    """The order for a piece that is sent now."""
    return Order(
        state.plan, state.folder.resolve(), parts, token, code, state.engine, dict(state.models), dict(state.doses),
        {name: _absolute(checkpoint) for name, checkpoint in state.checkpoints.items()}, dict(state.failures),
    )  # fmt: skip


def _absolute(checkpoint: Checkpoint) -> Checkpoint:
    """Workers have working folders of their own."""
    return replace(checkpoint, folder=checkpoint.folder.resolve())


def code_here() -> str:
    """Digest of the package as this process has it, with the versions of what it computes with."""
    return code_digest("harness", "judges", "restore", "results", "tasks", "vllm_setup.py")


def work(piece: Piece, order: Order, part: str) -> Outcome:
    """Does a piece; called on a worker, by the cluster.

    Args:
        piece: what to do.
        order: what else it takes.
        part: name of the file that this attempt appends to; what was known before lies beside it.

    Returns:
        What it came to; an error too, so that what is raised here is the cluster's own.
    """
    try:
        _check(order)
        return _done(piece, order, part)
    except (InputError, StorageError) as error:
        return Outcome(order.engine, bad_input=isinstance(error, InputError), error=error)
    except Exception as error:  # noqa: BLE001  # the driver decides; not every exception survives being sent
        return Outcome(order.engine, error=sendable(error))


def _check(order: Order) -> None:
    """Whether this worker sees what the driver sees, and runs what it runs."""
    path = order.parts / TOKEN
    if not path.is_file() or path.read_text(encoding="utf-8") != order.token:
        raise InputError(
            f"The worker on {platform.node()} does not see the run folder {order.folder}. Driver and workers must "
            "share a file system: choose an --output on it."
        )
    if code_here() != order.code:
        raise InputError(
            f"The worker on {platform.node()} has another safebasin, torch, transformers, peft or lm_eval than the "
            "driver. Install the same versions in the environments of both."
        )


def _done(piece: Piece, order: Order, part: str) -> Outcome:
    quiet()
    # What would fork must not: a worker of a cluster has threads of its own.
    config = order.plan.config.model_copy(update={"processes": 1, "executor": "local"})
    kept: Any = Part(order.parts / f"{part}.jsonl", order.parts / f"{part}.known")
    try:
        with writing_date(config.date), ending_thinking(config.think_end_token):
            state = _FarState(
                Plan(config, order.plan.builds, order.plan.cells), config, order.folder, kept, kept,
                task_infos(config), order.engine, dict(order.models), {}, dict(order.doses), dict(order.checkpoints),
                dict(order.failures),
            )  # fmt: skip
            piece.do(state)
    finally:
        kept.close()
    fresh = {what: reason for what, reason in state.failures.items() if what not in order.failures}
    return Outcome(
        state.engine, state.models, state.doses, state.checkpoints, fresh, state.cell_failures,
        frozenset(state.begun), state.bad_input,
    )  # fmt: skip
