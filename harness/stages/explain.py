"""Why a stored adapter or answer is taken again, or is not: the parts of its key beside those that are stored."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tasks.sandbox.location import world_of
from ..config.data import rows_for
from ..config.model import RunConfig
from ..config.settings import make_method
from ..engines.choice import EngineName
from ..plan import BuildStep, Plan
from ..store.digests import digest_of
from ..store.store import Store
from .build import PROVENANCE, load_checkpoint, spec_of
from .dose import Dose, dosed
from .folder import name_of
from .generate import cell_key, cell_parts, task_infos
from .models import ModelSource

__all__ = ["Explained", "differences", "explain"]


@dataclass(frozen=True)
class Explained:
    """One key of a run."""

    name: str
    """Of the build or the cell."""
    key: str
    """As it is now; empty where it cannot be known before something else is built."""
    parts: Mapping[str, Any]
    """What the key is made from."""
    taken: bool
    """Whether something is stored under it."""
    differ: tuple[str, ...]
    """Where nothing is: in what the nearest stored one of its kind differs, or that there is none."""


def explain(
    plan: Plan, folder: Path, store: Store, models: Mapping[str, ModelSource], engine: EngineName
) -> Iterator[Explained]:
    """Compares every build and every cell of a plan with what is stored; nothing is loaded or generated.

    Args:
        plan: of the run.
        folder: of the run.
        store: its store.
        models: by name; those that are still to be aligned are not there.
        engine: what generates.

    Yields:
        Builds in their order, then cells.
    """
    unmade: set[str] = set()  # whose folders, if there are any, hold what will be replaced
    for step in plan.builds:
        if step.model not in models:
            yield _unaligned(step.id, step.model)
            continue
        known_parent = step.parent not in unmade
        one = _build(step, plan.config, folder / "checkpoints", models[step.model]) if known_parent else _after(step)
        unmade |= set() if one.taken else {step.id}
        yield one
    tasks = task_infos(plan.config)
    for cell in plan.cells:
        if cell.model not in models:
            yield _unaligned(name_of(cell), cell.model)
            continue
        if cell.build in unmade:
            yield Explained(name_of(cell), "", {}, False, (f"{cell.build} is made first",))
            continue
        built = load_checkpoint(folder / "checkpoints" / cell.build) if cell.build else None
        parts = cell_parts(
            tasks[cell.task], models[cell.model], built.digest if built else "", plan.config, engine
        )  # fmt: skip
        key = cell_key(parts)
        known = store.cells_of(cell.task)
        yield Explained(name_of(cell), key, parts, store.has_cell(key), _nearest(known, parts))


def _unaligned(name: str, model: str) -> Explained:
    return Explained(name, "", {}, False, (f"the alignment of {model} is not made yet",))


def _after(step: BuildStep) -> Explained:
    return Explained(step.id, "", {}, False, (f"{step.parent} is made first",))


def _build(step: BuildStep, config: RunConfig, folder: Path, model: ModelSource) -> Explained:
    parent = load_checkpoint(folder / step.parent) if step.parent else None
    about = _about(folder / step.id / PROVENANCE)
    dose = Dose(**about["dose"]) if about.get("dose") else None
    method = make_method(step.method, step.settings)
    data = {name: rows_for(name, config, world_of(model.location)) for name in method.needs}
    parts = json.loads(json.dumps(spec_of(step, config, dosed(config.finetune.training(), dose), model, data, parent)))
    known = [about["made_from"]] if "made_from" in about else []
    return Explained(step.id, digest_of(parts), parts, about.get("key") == digest_of(parts), _nearest(known, parts))


def _about(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"'{path}' is no JSON: {error}. Remove the folder; its checkpoint is built again.") from error


def _nearest(known: Sequence[Mapping[str, Any]], parts: Mapping[str, Any]) -> tuple[str, ...]:
    if not known:
        return ("nothing of its kind is stored",)
    return min((tuple(differences(each, parts)) for each in known), key=len)


def differences(stored: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The parts in which two keys differ, by their path, each with what is stored and what is now."""
    for name in sorted({*stored, *now}):
        one, other = stored.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{at}{name}: ")
        elif one != other:
            yield f"{at}{name}: stored {_short(one)}, now {_short(other)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return f"{text[:12]}…" if len(text) > 40 and " " not in text else text[:80]
