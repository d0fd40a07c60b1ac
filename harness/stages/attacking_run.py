"""What `safebasin attack --run` attacks: the checkpoints of a finished run, on its own requests, before its judges."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...restore.models.checkpoint import kind_of
from ...tasks.verdicts import JudgeSpec
from ..config.task_checks import hrr_task
from ..plan import Plan, Row
from .asking import asker_for, requests_of
from .folder import load_plan
from .generate import task_infos
from .models import resolve

__all__ = ["OfRun", "of_run"]


class OfRun(NamedTuple):
    """What a run gives an attack."""

    base: str
    checkpoints: dict[str, Path]
    """Name of each row but the base's -> its folder; with several seeds the names say which."""
    rows: list[dict[str, Any]]
    """The first requests of its task of harm, with `prompt` and, where the data have one, `target`."""
    judges: Sequence[JudgeSpec]
    dtype: str
    device: str | None


def of_run(folder: Path, prompts: int) -> OfRun:
    """Reads a run folder.

    Args:
        folder: of the run.
        prompts: requests, at most.

    Raises:
        InputError: it is no run folder, has several models, an aligned one or no task of harm, or a row's checkpoint
            is not there.
    """
    plan = load_plan(folder)
    config = plan.config
    (spec, *others), task = config.models, hrr_task(config)
    if others or spec.align:
        what = "has several models" if others else "aligns its model first"
        raise InputError(f"The run in {folder} {what}: give --base, --checkpoint, --data and --judge instead of --run.")
    if task is None:
        raise InputError(f"The run in {folder} has no task of role hrr, whose requests an attack needs. Give --data.")
    base = resolve(spec.id, spec.revision)
    asked = requests_of(asker_for(Path(base.location)), task_infos(config)[task], config, prompts).asked
    kept = ("prompt", "before", "target")
    rows = [{key: one.doc[key] for key in kept if one.doc.get(key)} for one in asked]
    name = base.location if spec.revision else spec.id
    return OfRun(name, _checkpoints(plan, folder), rows, config.judges, config.dtype, config.device)


def _checkpoints(plan: Plan, folder: Path) -> dict[str, Path]:
    several = len({row.seed for row in plan.rows}) > 1
    found = {_name(row, several): folder / "checkpoints" / row.build for row in plan.rows if row.build}
    for path in found.values():
        if not path.is_dir():
            raise InputError(f"The checkpoint {path} is not there. Finish the run with `safebasin run` first.")
        kind_of(path)
    return found


def _name(row: Row, several: bool) -> str:
    return f"{row.label}, seed {row.seed}" if several else row.label
