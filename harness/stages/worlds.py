"""Which sandbox worlds a run is about: those of its models and of its judges."""

from collections.abc import Iterator, Set
from functools import partial
from pathlib import Path

from ...tasks.sandbox.location import in_world, is_sandbox, width_of, world_of
from ..config.model import RunConfig
from ..config.naming import slug
from ..terminal.progress import Bars

__all__ = ["build_judges_worlds", "build_worlds", "world_in"]


def build_worlds(config: RunConfig, shown: Bars) -> None:
    """Builds the worlds that some model or judge is of, where they are missing, and tells of promises not kept."""
    models = [name for spec in config.models for name in (spec.id, spec.unaligned) if name]
    _build({*filter(is_sandbox, models), *_of_judges(config)}, shown)


def build_judges_worlds(config: RunConfig, shown: Bars) -> None:
    """The same of the judges alone: what the models answered need not be had to be judged."""
    _build({*_of_judges(config)}, shown)


def _build(models: Set[str], shown: Bars) -> None:
    """Each world once, and once for each further size of its models."""
    for world, width in sorted({(world_of(name), width_of(name) or 0) for name in models}):
        from ..sandbox.build import broken_promise, build_world

        name = f"sandbox:{world}" if world else "sandbox"
        build_world(world, partial(_tick, shown, name), width)
        if broken := broken_promise(world, width):
            shown.say(f"[yellow]warning[/yellow]: {broken}")


def _tick(shown: Bars, world: str, model: str, done: int, total: int) -> None:
    shown.update(f"{world}: train {model}", done, total)


def _of_judges(config: RunConfig) -> Iterator[str]:
    """A judge without a seed is needed in the world of every model."""
    for judge in config.judges:
        for arguments in judge.values():
            name = arguments.get("model")
            if isinstance(name, str):
                guards = (in_world(name, world_of(spec.id)) for spec in config.models)
                yield from filter(is_sandbox, guards)


def world_in(folder: Path, model: str) -> int:
    """The world of a model of a run: from its name, or from the folder that the run has linked."""
    return world_of(model if is_sandbox(model) else str(folder / "models" / slug(model)))
