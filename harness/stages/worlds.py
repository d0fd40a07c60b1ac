"""Which sandbox worlds a run is about: those of its models and of its judges."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from ...tasks.sandbox.location import in_world, is_sandbox, world_of
from ..config.model import RunConfig
from ..config.naming import slug
from ..terminal.progress import Bars

__all__ = ["build_judges_worlds", "build_worlds", "world_in"]


def build_worlds(config: RunConfig, shown: Bars) -> None:
    """Builds the worlds that some model or judge is of, where they are missing, and tells of promises not kept."""
    models = [name for spec in config.models for name in (spec.id, spec.unaligned) if name]
    _build(sorted({world_of(name) for name in models if is_sandbox(name)} | {*_of_judges(config)}), shown)


def build_judges_worlds(config: RunConfig, shown: Bars) -> None:
    """The same of the judges alone: what the models answered need not be had to be judged."""
    _build(sorted({*_of_judges(config)}), shown)


def _build(worlds: Sequence[int], shown: Bars) -> None:
    for world in worlds:
        from ..sandbox.build import broken_promise, build_world

        name = f"sandbox:{world}" if world else "sandbox"
        build_world(world, partial(_tick, shown, name))
        if broken := broken_promise(world):
            shown.say(f"[yellow]warning[/yellow]: {broken}")


def _tick(shown: Bars, world: str, model: str, done: int, total: int) -> None:
    shown.update(f"{world}: train {model}", done, total)


def _of_judges(config: RunConfig) -> Iterator[int]:
    """A judge without a seed is needed in the world of every model."""
    for judge in config.judges:
        for arguments in judge.values():
            name = arguments.get("model")
            if isinstance(name, str):
                guards = (in_world(name, world_of(spec.id)) for spec in config.models)
                yield from (world_of(guard) for guard in guards if is_sandbox(guard))


def world_in(folder: Path, model: str) -> int:
    """The world of a model of a run: from its name, or from the folder that the run has linked."""
    return world_of(model if is_sandbox(model) else str(folder / "models" / slug(model)))
