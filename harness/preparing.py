"""What a run does before its first stage: worlds, models and judges that it needs are found or made."""

import itertools
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from ..errors import InputError
from .config.model import ModelSpec
from .config.naming import slug
from .engines.choice import choose
from .pieces import Do
from .relapsing import check_relapse
from .stages.align import find_model, model_of
from .stages.generate import JUDGED
from .stages.judge import judges_of
from .stages.memory import memory_plan
from .stages.worlds import build_worlds, world_in
from .state import RunState
from .store.files import make_folder

__all__ = ["LookPiece", "ModelPiece", "prepare"]


@dataclass(frozen=True)
class ModelPiece:
    """One base model, aligned where the config says so."""

    spec: ModelSpec
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the model."""
        return f"align {self.spec.id}"

    def do(self, state: RunState) -> None:
        """Finds or makes it.

        Raises:
            InputError: it cannot be had, and the run has no other.
        """
        try:
            state.models[self.spec.id] = model_of(self.spec, state.config, state.ticking(self.name))
        except InputError as error:
            if len(state.config.models) == 1:
                raise
            state.fail(self.spec.id, error)

    def lost(self, state: RunState, reason: str) -> None:
        """See `Piece`."""
        state.lose(self.spec.id, reason)


@dataclass(frozen=True)
class LookPiece:
    """A look at the machine that will compute: which engine it has, and what fits into its memory."""

    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of itself."""
        return "first look"

    def do(self, state: RunState) -> None:
        """Chooses the engine, and tells the memory.

        Raises:
            InputError: a model of the run is not there.
        """
        for model in state.models.values():
            if not (Path(model.location) / "config.json").is_file():
                raise InputError(
                    f"The worker does not see the model {model.location}. The caches of models (SAFEBASIN_CACHE, "
                    "HF_HOME) must be on a file system that all machines share."
                )
        state.engine = choose(state.config)
        for line in memory_plan(state.models, state.config, state.tasks.values(), state.engine):
            state.shown.say(line)

    def lost(self, state: RunState, reason: str) -> None:
        """Nothing else would be done either.

        Raises:
            InputError: always.
        """
        raise InputError(f"No worker could be had: {reason}. Look at `resources`: does any node have so much?")


def prepare(state: RunState, do: Do, here: Do) -> None:
    """Builds the sandbox where it is needed, finds models and judges, links the models in the run folder for others.

    Args:
        state: of the run.
        do: does pieces where the run computes.
        here: does them in this process.
    """
    build_worlds(state.config, state.shown)
    make_folder(state.folder / "models")
    for spec in state.config.models:
        _prepare_model(state, spec, do, here)
    check_relapse(state)
    if any(cell.role in JUDGED for cell in state.plan.cells):
        worlds = sorted({world_in(state.folder, name) for name in state.models})
        state.judges = {world: judges_of(state.config, world) for world in worlds}
        for judge in itertools.chain(*state.judges.values()):
            _ = judge.identity  # one that cannot be had is told now, not after all responses were generated
        for judge in state.remote:
            state.shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")
    do(state, [LookPiece()], lambda piece: None)


def _prepare_model(state: RunState, spec: ModelSpec, do: Do, here: Do) -> None:
    (do if _to_align(state, spec) else here)(state, [ModelPiece(spec)], lambda piece: None)
    if spec.id not in state.models:
        return
    link = state.folder / "models" / slug(spec.id)
    link.unlink(missing_ok=True)
    link.symlink_to(Path(state.models[spec.id].location).resolve())


def _to_align(state: RunState, spec: ModelSpec) -> bool:
    """Whether something must be trained; what is wrong with the model is told by the piece."""
    try:
        return spec.align is not None and find_model(spec, state.config) is None
    except InputError:
        return False
