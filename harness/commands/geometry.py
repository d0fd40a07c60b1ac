"""`safebasin geometry`: what fine-tuning leaves of the base's losses, example by example and around the weights."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from .geometry_tables import (
    correlations_table,
    driving_table,
    paths_table,
    paying_table,
    predicted_table,
    preserved_table,
    structures_table,
)
from .restoring import read_settings
from .shared import add_command, console_of_output

if TYPE_CHECKING:
    from ..stages.geometry_restoring import Given
    from ..terminal.progress import Bars

__all__ = ["add_to"]

Base = Annotated[str, typer.Option("--base", help="Base model: folder, hub id or 'sandbox'.")]
Tuned = Annotated[
    Path | None, typer.Option("--tuned", help="Adapter or whole model made from it (a sandbox base: made for it).")
]
Restored = Annotated[
    Path | None, typer.Option("--restored", help="The same, restored; with its iterations/ if it has them.")
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="NAME=SOURCE",
        help="Rows: a file, owner/name:split, dolly, alpaca, advbench, hex_phi, sandbox/SPLIT.",
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--columns", metavar="SET.ROLE=COLUMN,...", help="What columns are where their names do not tell."),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Rows of a forward pass; not for the result.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …")]
Output = Annotated[Path, typer.Option("--output", help="Folder for tables, manifest and page.")]
Adapter = Annotated[Path | None, typer.Option("--tuned", help="Adapter made from it (a sandbox base: made for it).")]
Roles = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=SOURCE", help="harmful=... and task=...: what a restoration works on."),
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the restoration; repeatable.")
]
Seed = Annotated[int, typer.Option("--seed", help="Of the restoration: splits and batches.")]
SHOWN = 10
"""Rows of a ranking that are printed."""


def correlate(
    output: Output,
    base: Base = "sandbox",
    tuned: Tuned = None,
    restored: Restored = None,
    data: Data = None,
    columns: Columns = None,
    rows: Annotated[int, typer.Option("--rows", min=5, help="Of each set, at most: the first ones.")] = 200,
    unrelated: Annotated[
        str, typer.Option("--unrelated", help="A control: another model, random weights ('random'), or 'none'.")
    ] = "random",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of answers and refusals.")] = 64,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of the controls' draws.")] = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Correlations of per-example losses."""
    from ..stages.correlating import Settings
    from ..stages.correlating import correlate as measure
    from ..stages.geometry_rows import SANDBOX_SETS

    sources, meant = _sets(data, columns, SANDBOX_SETS)
    settings = Settings(
        base, tuned, restored, sources, meant, rows=rows, unrelated=unrelated, batch_size=batch_size,
        max_new_tokens=max_new_tokens, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    console = console_of_output()
    with _progress(console) as shown:
        found = measure(settings, output, shown)
    console.print(correlations_table(found.correlations))
    _where(console, output, "losses.csv, means.csv, correlations.csv, manifest.json, correlate.html")


def landscape(
    output: Output,
    base: Base = "sandbox",
    tuned: Tuned = None,
    restored: Restored = None,
    data: Data = None,
    columns: Columns = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Of each of the two draws, at most.")] = 32,
    points: Annotated[int, typer.Option("--points", min=3, help="Of a side of the grid.")] = 20,
    reach: Annotated[float, typer.Option("--reach", help="The largest step along a direction.")] = 0.01,
    seeds: Annotated[tuple[int, int], typer.Option("--seeds", help="Of the two directions.")] = (1000, 2000),
    scale: Annotated[
        str, typer.Option("--scale", help="tensor: directions as long as each tensor; raw: as gradients are.")
    ] = "tensor",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of answers and refusals.")] = 64,
    batch_size: BatchSize = 32,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Losses around the weights."""
    from ..stages.landscaping import DEFAULT_SETS, LandscapeSettings
    from ..stages.landscaping import landscape as take

    sources, meant = _sets(data, columns, DEFAULT_SETS)
    settings = LandscapeSettings(
        base, tuned, restored, sources, meant, rows=rows, points=points, reach=reach, seeds=seeds, scale=scale,
        batch_size=batch_size, max_new_tokens=max_new_tokens, dtype=dtype, device=device,
    )  # fmt: skip
    console = console_of_output()
    with _progress(console) as shown:
        found = take(settings, output, shown)
    console.print(structures_table(found.structures()))
    _where(console, output, "grid.csv, sections.csv, structure.csv, percentiles.csv, manifest.json, landscape.html")


def influence(
    output: Output,
    base: Base = "sandbox",
    tuned: Adapter = None,
    data: Roles = None,
    columns: Columns = None,
    preset: Annotated[
        str, typer.Option("--preset", help="Of the restoration: default, paper, paper_literal.")
    ] = "default",
    changes: Changes = None,
    rows: Annotated[int, typer.Option("--rows", min=2, help="Of each set, at most: the first ones.")] = 1000,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """Examples that drive a restoration's first update."""
    from ...results.geometry.influence import half_of_the_update
    from ..stages.influencing import influence as take_apart

    given = _given(base, tuned, data, columns, rows, batch_size, seed, dtype, device)
    console = console_of_output()
    with _progress(console) as shown:
        found = take_apart(given, preset, read_settings(changes or []), output, shown)
    console.print(driving_table(found.examples.head(SHOWN)))
    console.print(paying_table(found.costs.head(SHOWN)))
    console.print(
        f"{half_of_the_update(found.examples)} of {len(found.examples)} examples make half of the update.",
        highlight=False,
    )
    _where(console, output, "examples.csv, costs.csv, manifest.json, influence.html")


def trajectory(
    output: Output,
    base: Base = "sandbox",
    tuned: Adapter = None,
    data: Roles = None,
    columns: Columns = None,
    preset: Annotated[
        list[str] | None, typer.Option("--preset", help="Of the restoration; default and paper unless given.")
    ] = None,
    changes: Changes = None,
    step_sizes: Annotated[
        tuple[float, float], typer.Option("--step-sizes", help="Lengths of a step, as shares of the adapter's.")
    ] = (0.01, 0.05),
    steps: Annotated[int, typer.Option("--steps", min=2, help="Of each path, at most.")] = 12,
    points: Annotated[int, typer.Option("--points", min=3, help="Of a side of the grid.")] = 15,
    rows: Annotated[int, typer.Option("--rows", min=2, help="Of each set, at most: the first ones.")] = 1000,
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """First-order and curvature-aware paths."""
    from ..stages.trajectories import Drawn
    from ..stages.trajectories import trajectory as walk

    given = _given(base, tuned, data, columns, rows, batch_size, seed, dtype, device)
    drawn = Drawn(tuple(preset or ("default", "paper")), step_sizes, steps, points)
    console = console_of_output()
    with _progress(console) as shown:
        found = walk(given, drawn, read_settings(changes or []), output, shown)
    console.print(paths_table(found.paths, found.planes))
    _where(console, output, "paths.csv, grid.csv, planes.csv, manifest.json, trajectory.html")


def claim(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    output: Output,
    tuned_row: Annotated[str, typer.Option("--tuned-row", help="Label of the fine-tuned row.")] = "lora",
    data: Data = None,
    columns: Columns = None,
    rows: Annotated[int, typer.Option("--rows", min=5, help="Of each set, at most: the first ones.")] = 200,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of answers and refusals.")] = 64,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option("--seed", help="Of the controls' draws.")] = 0,
    dtype: Dtype = "auto",
    device: Device = None,
) -> None:
    """The paper's claim over the fine-tunings of runs."""
    from ..stages.claiming import claim as ask
    from ..stages.correlating import NOTHING, Settings
    from ..stages.geometry_rows import SANDBOX_SETS

    sources, meant = _sets(data, columns, SANDBOX_SETS)
    settings = Settings(
        "", None, None, sources, meant, rows=rows, unrelated=NOTHING, batch_size=batch_size,
        max_new_tokens=max_new_tokens, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    console = console_of_output()
    with _progress(console) as shown:
        found = ask(runs, settings, tuned_row, output, shown)
    console.print(preserved_table(found.preserved))
    console.print(predicted_table(found.predicted))
    _where(
        console, output, "correlations.csv, cells.csv, preserved.csv, predicted.csv, manifest.json, claim.html, pairs/"
    )


def _given(
    base: str,
    tuned: Path | None,
    data: list[str] | None,
    columns: list[str] | None,
    rows: int,
    batch_size: int,
    seed: int,
    dtype: str,
    device: str | None,
) -> "Given":
    from ..stages.geometry_restoring import ROLES, Given

    sources, meant = _sets(data, columns, ROLES)
    return Given(base, tuned, sources, meant, rows, batch_size, seed, dtype, device)


def _sets(
    data: list[str] | None, columns: list[str] | None, own: Iterable[str]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Sets by name and their columns, as the options give them; without `data` the columns are of the sandbox's own."""
    from ..stages.geometry_rows import named_columns, named_sources

    sources = named_sources(data or [])
    return sources, named_columns(columns or [], [*(sources or own)])


@contextmanager
def _progress(console: Console) -> "Iterator[Bars]":
    from ..terminal.progress import bars
    from ..terminal.quiet import quiet

    quiet()
    with bars(console) as shown:
        yield shown


def _where(console: Console, output: Path, names: str) -> None:
    console.print(f"In {output}: {names}", highlight=False, markup=False, soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Adds the commands; the help of each opens with an example."""
    group = typer.Typer(help="What fine-tuning leaves of a model's losses (docs/geometry.md).", no_args_is_help=True)
    add_command(
        group, correlate, "geometry correlate --output runs/correlate",
        "Correlations of per-example losses of base, tuned and restored models, with the controls beside them.",
    )  # fmt: skip
    add_command(
        group, landscape, "geometry landscape --output runs/landscape",
        "Loss landscapes around base, tuned and restored weights, with structural differences and their noise floors.",
    )  # fmt: skip
    add_command(
        group, influence, "geometry influence --output runs/influence",
        "Which examples drive a restoration's first update, and which rows of the task pay for it, ranked.",
    )  # fmt: skip
    add_command(
        group, trajectory, "geometry trajectory --output runs/trajectory",
        "Paths of a first-order and of the curvature-aware method in their principal plane, over contours of the "
        "objective, at two step sizes.",
    )  # fmt: skip
    add_command(
        group, claim, "geometry claim runs/worlds --output runs/claim",
        "Over the fine-tunings of finished runs: is harmful loss better preserved than other loss, given length and on "
        "the same targets, and does what is preserved predict how much a repair undoes?",
    )  # fmt: skip
    app.add_typer(group, name="geometry")
