"""Further judges for a finished run: its responses go before them, and nothing is generated."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from ...judges.base import Judge
from ...results.method_result import ROLES
from ...tasks.verdicts import JudgeSpec, build_judges
from ..plan import Plan
from ..store.files import locked
from ..store.store import JudgeRecord, Store
from ..terminal.progress import Bars, bars
from ..terminal.quiet import quiet
from .folder import load_plan, name_of, open_store, store_of
from .generate import JUDGED
from .judge import judge_cells, judged_as, processes_of, record_of, remote_of, spent_by
from .manifest import note_judges
from .memory import judge_bytes
from .worlds import build_judges_worlds, world_in

__all__ = ["add_judges", "as_config"]

Built = Sequence[tuple[Judge, int | None]]
"""Judges of one world, each with the bytes of its weights, where these are known."""


def add_judges(folder: Path, specs: Sequence[JudgeSpec], console: Console, store_path: Path | None = None) -> None:
    """Lets further judges judge all responses of a run; they decide after those that it has.

    A judge that the run has already, with the same settings and weights, is not asked again. One that decides a facet
    that no other does also judges the VISAGE sweep, whose points rest on deciding judges alone.

    Args:
        folder: of the run.
        specs: as in a config.
        console: where progress goes.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run or another process works in it, or a judge cannot be had.
    """
    plan = load_plan(folder)
    given = as_config(specs)
    quiet()
    with locked(folder, wait=False), bars(console) as shown:
        build_judges_worlds(plan.config.model_copy(update={"judges": tuple(given)}), shown)
        store_of(folder, store_path)
        store = open_store(folder, store_path)
        try:
            by_world = _built(plan, folder, given)
            remote = remote_of(judge for built in by_world.values() for judge, _ in built)
            for judge in remote:
                shown.say(f"[yellow]{escape(judge.notice)}[/yellow]")
            for world, judges in by_world.items():
                _judge_world(plan, folder, store, world, judges, shown)
        finally:
            store.close()
        for judge in remote:
            shown.say(escape(spent_by(judge)))
        identities = dict.fromkeys(judge.identity for judges in by_world.values() for judge, _ in judges)
        note_judges(folder / "manifest.json", [*identities], {judge.identity: judge.spent for judge in remote})


def as_config(specs: Sequence[JudgeSpec]) -> list[dict[str, dict[str, Any]]]:
    """Judges as a config holds them: `{name: {setting: value}}` each."""
    return [
        {spec: {}} if isinstance(spec, str) else {name: dict(settings or {}) for name, settings in spec.items()}
        for spec in specs
    ]


def _built(plan: Plan, folder: Path, specs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[int, Built]:
    """The judges by the sandbox world whose models they judge, each found before any is asked."""
    worlds = sorted({world_in(folder, spec.id) for spec in plan.config.models})
    found: dict[int, Built] = {}
    for world in worlds:
        judges = build_judges(specs, world, whole=False)
        found[world] = [(judge, judge_bytes(spec, world)) for judge, spec in zip(judges, specs, strict=True)]
        for judge in judges:
            _ = judge.identity  # one that cannot be had is told now
    return found


def _judge_world(plan: Plan, folder: Path, store: Store, world: int, built: Built, shown: Bars) -> None:
    run = judged_as(plan.digest, world)
    before = store.judges(run)
    known = {record.identity for record in before}
    new = [(judge, weights) for judge, weights in built if judge.identity not in known]
    for judge, _ in built:
        if judge.identity in known:
            shown.say(f"{escape(judge.name)} has judged this run before: nothing is judged again")
    keys = _keys(plan, folder, store, world, before, [judge for judge, _ in new])
    if new and keys:
        judge_cells(
            [judge for judge, _ in new], keys, run, store,
            lambda name, done, total: shown.update(f"judge: {name}", done, total),
            processes_of(plan.config, [weights for _, weights in new]), before,
        )  # fmt: skip


def _keys(
    plan: Plan, folder: Path, store: Store, world: int, before: Sequence[JudgeRecord], new: Sequence[Judge]
) -> list[str]:
    """The finished cells that such judges have to see."""
    decided = frozenset[str]().union(*(record.decides for record in before))
    roles = JUDGED if any(record_of(judge).decides - decided for judge in new) else ROLES
    assigned = store.assignments(plan.digest)
    cells = [cell for cell in plan.every_cell if cell.role in roles and world_in(folder, cell.model) == world]
    return [key for cell in cells if (key := assigned.get(name_of(cell), (None, ""))[0])]
