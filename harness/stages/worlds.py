"""Which sandbox worlds a run is about: those of its models and of its judges."""

from functools import partial
from pathlib import Path

from ...tasks.sandbox.location import in_world, is_sandbox, world_of
from ..config.model import RunConfig
from ..config.naming import slug
from ..terminal.progress import Bars

__all__ = ["build_worlds", "world_in"]


def build_worlds(config: RunConfig, shown: Bars) -> None:
    """Builds the worlds that some model or judge is of, where they are missing, and tells of promises not kept."""
    for world in _needed(config):
        from ..sandbox.build import broken_promise, build_world

        name = f"sandbox:{world}" if world else "sandbox"
        build_world(world, partial(_tick, shown, name))
        if broken := broken_promise(world):
            shown.say(f"[yellow]warning[/yellow]: {broken}")


def _tick(shown: Bars, world: str, model: str, done: int, total: int) -> None:
    shown.update(f"{world}: train {model}", done, total)


def _needed(config: RunConfig) -> list[int]:
    """Sorted. A judge without a seed is needed in the world of every model."""
    models = [name for spec in config.models for name in (spec.id, spec.unaligned) if name]
    judges = [arguments.get("model") for judge in config.judges for arguments in judge.values()]
    guards = [in_world(name, world_of(spec.id)) for name in judges if isinstance(name, str) for spec in config.models]
    return sorted({world_of(name) for name in (*models, *guards) if is_sandbox(name)})


def world_in(folder: Path, model: str) -> int:
    """The world of a model of a run: from its name, or from the folder that the run has linked."""
    return world_of(model if is_sandbox(model) else str(folder / "models" / slug(model)))
