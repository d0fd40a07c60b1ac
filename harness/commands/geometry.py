"""`safebasin geometry`: what fine-tuning leaves of the base's losses, example by example and around the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .restoring import read_settings
from .shared import add_command, console_of_output

if TYPE_CHECKING:
    import pandas as pd

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
MAIN = ("prompt", "affirmative", "answer", "refusal")


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
    from ..stages.geometry_rows import SANDBOX_SETS, named_columns, named_sources

    sources = named_sources(data or [])
    meant = named_columns(columns or [], [*(sources or SANDBOX_SETS)])
    settings = Settings(
        base, tuned, restored, sources, meant, rows=rows, unrelated=unrelated, batch_size=batch_size,
        max_new_tokens=max_new_tokens, seed=seed, dtype=dtype, device=device,
    )  # fmt: skip
    console = console_of_output()
    with _progress(console) as shown:
        found = measure(settings, output, shown)
    console.print(_correlations(found.correlations))
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
    from ..stages.geometry_rows import named_columns, named_sources
    from ..stages.landscaping import DEFAULT_SETS, LandscapeSettings
    from ..stages.landscaping import landscape as take

    sources = named_sources(data or [])
    meant = named_columns(columns or [], [*(sources or DEFAULT_SETS)])
    settings = LandscapeSettings(
        base, tuned, restored, sources, meant, rows=rows, points=points, reach=reach, seeds=seeds, scale=scale,
        batch_size=batch_size, max_new_tokens=max_new_tokens, dtype=dtype, device=device,
    )  # fmt: skip
    console = console_of_output()
    with _progress(console) as shown:
        found = take(settings, output, shown)
    console.print(_structures(found.structures()))
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
    console.print(_driving(found.examples.head(SHOWN)))
    console.print(_paying(found.costs.head(SHOWN)))
    console.print(
        f"{half_of_the_update(found.examples)} of {len(found.examples)} examples make half of the update.",
        highlight=False,
    )
    _where(console, output, "examples.csv, costs.csv, manifest.json, influence.html")


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
    from ..stages.geometry_rows import named_columns, named_sources

    sources = named_sources(data or [])
    meant = named_columns(columns or [], [*(sources or ROLES)])
    return Given(base, tuned, sources, meant, rows, batch_size, seed, dtype, device)


def _driving(frame: "pd.DataFrame") -> Table:
    """The first examples, their prompts aside: some may be harmful."""
    table = Table("part of", "row", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("share %", "turn °", "loss", "tokens"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = (f"{100 * row['share']:.2f}", _r(row["turn"]), f"{row['loss']:.3f}", str(row["tokens"]))
        table.add_row(row["term"], f"{row['set']} {row['row']}", *numbers)
    return table


def _paying(frame: "pd.DataFrame") -> Table:
    """The dearest rows."""
    table = Table("row", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("cost", "first order", "before", "after", "tokens"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = [f"{row[name]:.4f}" for name in ("cost", "first_order", "before", "after")]
        table.add_row(f"retain_check {row['row']}", *numbers, str(row["tokens"]))
    return table


def _structures(frame: "pd.DataFrame") -> Table:
    """Structural differences with their noise floors."""
    table = Table("losses on", "compared", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("draw", "signed %", "absolute %", "rough %", "range, nats"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = ["-" if row[name] != row[name] else f"{row[name]:.2f}" for name in ("signed", "absolute", "rough")]
        table.add_row(row["set"], row["compared"], str(row["draw"] or "both"), *numbers, f"{row['spread']:.3g}")
    return table


@contextmanager
def _progress(console: Console) -> "Iterator[Bars]":
    from ..terminal.progress import bars
    from ..terminal.quiet import quiet

    quiet()
    with bars(console) as shown:
        yield shown


def _where(console: Console, output: Path, names: str) -> None:
    console.print(f"In {output}: {names}", highlight=False, markup=False, soft_wrap=True)


def _correlations(frame: "pd.DataFrame") -> Table:
    """Of each set and target: r with its interval, and controls; a restoration's iterations are on the page alone."""
    table = Table("set", "target", "model", box=SIMPLE_HEAD, pad_edge=False)
    heads = ("n", "r [95 %]", "Spearman", "given length", "same length", "shuffled")
    for head in heads:
        table.add_column(head, justify="right")
    shown = frame[frame["target"].isin(MAIN) & ~frame["model"].str.startswith("iteration ")]
    for row in shown.to_dict("records"):
        interval = f"{_r(row['pearson'])} [{_r(row['pearson_low'])}, {_r(row['pearson_high'])}]"
        others = [_r(row[name]) for name in ("spearman", "partial", "matched", "shuffled")]
        table.add_row(*(row[name] for name in ("set", "target", "model")), str(row["n"]), interval, *others)
    return table


def _r(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


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
    app.add_typer(group, name="geometry")
