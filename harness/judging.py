"""The judge stage of a run: every response before every judge."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from ..errors import InputError
from ..judges.base import Exchange, Judge
from .pieces import Do
from .stages.folder import name_of
from .stages.generate import JUDGED
from .stages.judge import Judging, OnProgress, here, judge_cells, judged_as, judges_of, processes_of, spent_by
from .stages.memory import judge_bytes
from .stages.worlds import world_in
from .state import RunState
from .store.files import make_folder
from .terminal.whole import Stage

__all__ = ["WAITING", "JudgePiece", "judge_all"]

WAITING = "waiting"
"""Folder below the run's for responses on their way to judges elsewhere."""


@dataclass(frozen=True)
class JudgePiece:
    """Responses for one judge."""

    world: int
    number: int
    """Of the judge, in the config."""
    part: int
    bar: str
    """What progress calls it."""
    exchanges: Path
    """File of lines, a JSON list of prompt and response each."""
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the judge, and of the part."""
        return f"judge {self.number} of world {self.world}, part {self.part}"

    def do(self, state: RunState) -> None:
        """Judges what has no verdict yet.

        Raises:
            InputError: the judge cannot be had, or fails.
        """
        judge = judges_of(state.config, self.world)[self.number]
        waiting = [Exchange(*json.loads(line)) for line in self.exchanges.read_text(encoding="utf-8").splitlines()]
        known = state.store.verdicts(judge.identity, waiting)
        missing = [exchange for exchange in waiting if exchange not in known]

        def tell(judge: Judge, finished: int) -> None:
            state.shown.update(self.bar, len(known) + finished, len(waiting))

        try:
            here(
                Judging(
                    self.number, judge, missing, len(missing),
                    lambda some, verdicts: state.store.add_verdicts(judge.identity, some, verdicts), tell, 1,
                )
            )  # fmt: skip
        finally:
            judge.close()

    def lost(self, state: RunState, reason: str) -> None:
        """A run without verdicts has no table.

        Raises:
            InputError: always.
        """
        raise InputError(f"The responses could not be judged: {reason}. Run again: what was judged is kept.")


def judge_all(state: RunState, do: Do, far: bool) -> None:
    """Lets every judge judge.

    Args:
        state: of the run.
        do: does pieces.
        far: whether it does them elsewhere: then judges that are models judge there.
    """
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
            weights = [judge_bytes(judge, world) for judge in state.config.judges]

            def by(judging: Judging, world: int = world, weights: list[int | None] = weights) -> None:
                if far and weights[judging.number] != 0 and judging.total:
                    _elsewhere(state, do, world, judging)
                else:
                    here(judging)

            judge_cells(
                judges,
                present,
                judged_as(state.plan.digest, world),
                state.store,
                _progress(state, stage, world),
                processes_of(state.config, weights),
                by=by,
            )
    for judge in state.remote:
        state.shown.say(escape(spent_by(judge)))


def _progress(state: RunState, stage: Stage, world: int) -> OnProgress:
    def tick(name: str, done: int, total: int) -> None:
        bar = f"{_where(world, state)}{name}"
        stage.hear(bar, done, total, 1)
        state.shown.update(bar, done, total)

    return tick


def _where(world: int, state: RunState) -> str:
    return f"judge of world {world}: " if len(state.judges) > 1 else "judge: "


def _elsewhere(state: RunState, do: Do, world: int, judging: Judging) -> None:
    """Writes the responses down, and lets workers judge them; the verdicts come back into the store."""
    workers = min(state.config.resources.workers, judging.total)
    folder = make_folder(state.folder / WAITING)
    bar = f"{_where(world, state)}{judging.judge.name}, part "
    pieces = [
        JudgePiece(
            world, judging.number, part, f"{bar}{part + 1}", folder / f"{world}-{judging.number}-{part}.jsonl"
        )
        for part in range(workers)
    ]  # fmt: skip
    try:
        for piece, exchanges in zip(pieces, _dealt(judging.exchanges, workers), strict=True):
            lines = (json.dumps([*exchange]) + "\n" for exchange in exchanges)
            piece.exchanges.write_text("".join(lines), encoding="utf-8")
        do(state, pieces, lambda piece: None)
    finally:
        for piece in pieces:
            piece.exchanges.unlink(missing_ok=True)
    judging.tell(judging.judge, judging.total)


def _dealt(exchanges: Iterable[Exchange], hands: int) -> Iterator[list[Exchange]]:
    """In turns, to so many hands."""
    every = list(exchanges)
    return (every[number::hands] for number in range(hands))
