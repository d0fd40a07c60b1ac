"""The build stage of a run: every method's checkpoint, after the one that it starts from."""

from dataclasses import dataclass

from rich.markup import escape

from .config.naming import slug
from .pieces import Do, Piece
from .plan import BuildStep
from .stages.build import Checkpoint, build
from .stages.dose import Dose, find_dose
from .state import RunState

__all__ = ["BuildPiece", "build_all"]


@dataclass(frozen=True)
class BuildPiece:
    """One checkpoint to build."""

    step: BuildStep
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the build."""
        return self.step.id

    def do(self, state: RunState) -> None:
        """Builds it, unless what it needs has failed."""
        step = self.step
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

    def lost(self, state: RunState, reason: str) -> None:
        """See `Piece`."""
        state.lose(self.step.id, reason)


def build_all(state: RunState, do: Do) -> None:
    """Builds every checkpoint of the plan."""
    stage = state.begin("build")

    def done(piece: Piece) -> None:
        begun = piece.name in state.begun
        stage.settle(1, found=0 if begun else 1)
        if begun:
            state.shown.tell_whole()

    do(state, _pieces(state), done)


def _pieces(state: RunState) -> list[BuildPiece]:
    """Each waits for its parent, and for the first of its model and seed where that finds the dose for all of them."""
    first: dict[tuple[str, int], str] = {}
    found = []
    for step in state.plan.builds:
        waits = [step.parent] if step.parent else []
        if state.config.target_hrr(step.model) is not None:
            finder = first.setdefault((step.model, step.seed), step.id)
            waits += [finder] if finder != step.id else []
        found.append(BuildPiece(step, tuple(dict.fromkeys(waits))))
    return found


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
