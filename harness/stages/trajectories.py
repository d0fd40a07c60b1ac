"""`geometry trajectory`: paths of a first-order and of the curvature-aware method, over contours in their plane."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...results.export import write_table
from ...tasks.sandbox.location import cache_folder
from ..store.files import make_folder
from ..terminal.progress import Bars
from .geometry_restoring import Case, Given, case_of, config_of
from .manifest import write_manifest

if TYPE_CHECKING:
    import pandas as pd

    from ...restore.geometry.trajectory import Figure, Ground

__all__ = ["GRID", "PATHS", "PLANES", "Drawn", "Trajectories", "trajectory"]

PATHS, GRID, PLANES = "paths.csv", "grid.csv", "planes.csv"


@dataclass(frozen=True)
class Drawn:
    """Which figures are drawn."""

    presets: Sequence[str] = ("default", "paper")
    step_sizes: Sequence[float] = (0.01, 0.05)
    """Lengths of steps, as shares of the tuned adapter's."""
    steps: int = 12
    points: int = 15
    """Of a side of the grid."""

    def __post_init__(self) -> None:
        if self.steps < 2 or self.points < 3:
            raise InputError(f"--steps {self.steps} and --points {self.points}: at least 2, and at least 3.")
        if not all(size > 0 for size in self.step_sizes):
            raise InputError(f"--step-sizes {' '.join(map(str, self.step_sizes))}: each is more than 0.")


@dataclass(frozen=True)
class Trajectories:
    """What came of it; all tables have the columns preset and step_size."""

    paths: "pd.DataFrame"
    """path, step, a, b (coordinates in the plane), off (distance from it), harmful, retain, objective."""
    grid: "pd.DataFrame"
    """a, b, harmful, retain, objective."""
    planes: "pd.DataFrame"
    """length (of a step), explained_1, explained_2 (shares of the variance), weight (of the retain loss in the
    objective), and how both paths ended."""


def trajectory(given: Given, drawn: Drawn, changes: Mapping[str, Any], output: Path, shown: Bars) -> Trajectories:
    """Walks all paths, and writes paths.csv, grid.csv, planes.csv, manifest.json and trajectory.html.

    Args:
        given: what is looked at.
        drawn: which figures.
        changes: settings in place of those of the presets.
        output: folder.
        shown: progress.

    Raises:
        InputError: models or rows cannot be had or do not fit, or paths span no plane.
    """
    import pandas as pd

    from ...results.geometry.trajectory import trajectory_page

    make_folder(output)
    configs = {preset: config_of(given, preset, changes) for preset in drawn.presets}
    case = case_of(given, next(iter(configs.values())), shown)
    rows: dict[str, list[dict[str, Any]]] = {PATHS: [], GRID: [], PLANES: []}
    for preset, config in configs.items():
        for name, own in _figures(case, preset, config, drawn, shown):
            rows[name].append(own)
    result = Trajectories(*(pd.DataFrame(own) for own in rows.values()))
    for name, table in zip(rows, (result.paths, result.grid, result.planes), strict=True):
        write_table(table, output / name)
    settings = {**asdict(given), "tuned": str(given.tuned or ""), **asdict(drawn)}
    settings["restoration"] = {preset: asdict(config) for preset, config in configs.items()}
    facts = {"command": "geometry trajectory", "settings": settings, **case.facts}
    write_manifest(output / "manifest.json", facts)
    trajectory_page(result.paths, result.grid, result.planes, facts, output, cache_folder())
    return result


def _figures(case: Case, preset: str, config: Any, drawn: Drawn, shown: Bars) -> Iterator[tuple[str, dict[str, Any]]]:
    """(table, row) of all figures of one preset."""
    from ...restore.geometry.trajectory import figure, ground_of
    from ...restore.restoration.aim import make_aim
    from ...restore.restoration.problem import posed
    from ...restore.restoration.stopping import stop_rule

    with posed(case.model, case.tokenizer, case.data, config, on_progress=shown.update) as found:
        enough = stop_rule(found.losses, found.tokenizer, case.data.curvature_forget, config)
        ground = ground_of(found.losses, make_aim(found.losses, config))
        for size in drawn.step_sizes:
            tick = partial(shown.update, f"{preset}, step size {size:g}")
            made = figure(found.losses, config, size, drawn.steps, drawn.points, enough, tick)
            for name, row in _rows(made, ground):
                yield name, {"preset": preset, "step_size": size, **row}


def _rows(made: "Figure", ground: "Ground") -> Iterator[tuple[str, dict[str, Any]]]:
    one, two = made.plane.explained
    ended = {f"{path.name} ended": path.ended for path in made.paths}
    about = {"length": made.length, "explained_1": one, "explained_2": two, "weight": ground.weight}
    yield PLANES, {**about, **ended}
    for path in made.paths:
        places, off = made.plane.coordinates(path.points), made.plane.distances(path.points)
        for step, ((a, b), distance, heights) in enumerate(zip(places, off, path.heights, strict=True)):
            at = {"path": path.name, "step": step, "a": float(a), "b": float(b), "off": float(distance)}
            yield PATHS, {**at, **asdict(heights)}
    for a, line in zip(made.a, made.grid, strict=True):
        for b, heights in zip(made.b, line, strict=True):
            yield GRID, {"a": a, "b": b, **asdict(heights)}
