"""`safebasin attack`: how well a base and what was made of it withstand an optimised suffix (docs/suffix-attack.md)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ...errors import InputError
from ...registry import suggest
from .shared import console_of_output

if TYPE_CHECKING:
    import pandas as pd

    from ...restore.attacks.suffix import Search
    from ...tasks.verdicts import JudgeSpec
    from ..stages.attacking import AttackSettings

__all__ = ["add_to", "named_checkpoints", "read_searches"]

HEADS = ("n", "harmful % [95 %]", "minus base", "refused %", "incoherent %", "target greedy %", "loss", "tried")


def attack(
    run: Annotated[
        Path | None, typer.Option("--run", help="Run folder: its checkpoints, on its requests, before its judges.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for tables, manifest and what is kept (default: RUN/suffix)."),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Base model: folder, hub id or 'sandbox' (the default).")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="NAME=DIR",
            help="Adapter or whole model made from it; repeatable (a sandbox base: a tuned and a restored one).",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="Requests: a file, owner/name:split, advbench, hex_phi, sandbox/SPLIT."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="ROLE=COLUMN,...", help="What columns are, where their names do not tell."),
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="J", help="A judge: NAME, or NAME={setting: value}; may be repeated."),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option("--search", help="gradient, substitutions, random; repeatable (default: gradient and random)."),
    ] = None,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Requests, at most: the first ones.")] = 50,
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens of a suffix.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Of a search, at most.")] = 100,
    candidates: Annotated[int, typer.Option("--candidates", min=1, help="Suffixes evaluated in a step.")] = 128,
    top_k: Annotated[int, typer.Option("--top-k", min=1, help="Tokens for a place, by the gradient.")] = 64,
    target_tokens: Annotated[
        int | None, typer.Option("--target-tokens", min=1, help="Of the target, the first so many (default: all).")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="Suffixes of a forward pass; not for the result.")
    ] = 64,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Of an answer.")] = 64,
    seed: Annotated[int, typer.Option("--seed", help="Of the draws.")] = 0,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …")] = None,
) -> None:
    """Suffixes optimised against each model, white-box: does a restored one withstand them as its base does?

    safebasin attack --run runs/sandbox

    safebasin attack --base B --checkpoint lora=A --checkpoint restored=R --data harmful.csv --judge J --output O
    """
    from ...restore.attacks.suffix import SuffixSettings
    from ..stages.attacking import PROMPTS, TABLE, AttackSettings, attack_models
    from ..terminal.progress import bars
    from ..terminal.quiet import quiet

    quiet()
    what = AttackSettings(
        base or "sandbox", named_checkpoints(checkpoint or []), data,
        SuffixSettings(length, steps, candidates, top_k, target_tokens, batch_size),
        _columns(columns or []), _judges(judges or []), searches=read_searches(search or ["gradient", "random"]),
        prompts=prompts, max_new_tokens=max_new_tokens, seed=seed, dtype=dtype or "auto", device=device,
    )  # fmt: skip
    if run is not None:
        if base or checkpoint or data or columns or judges:
            raise InputError(
                "--run says what is attacked: with it give no --base, --checkpoint, --data, --columns, --judge."
            )
        what = _of_run(what, run, dtype)
    folder = output or (run / "suffix" if run else None)
    if folder is None:
        raise InputError("--output is missing: give a folder for the tables, or a run folder with --run.")
    console = console_of_output()
    with bars(console) as shown:
        found = attack_models(what, folder, shown)
    console.print(_table(found))
    console.print(f"In {folder}: {TABLE}, {PROMPTS}, manifest.json", highlight=False, markup=False, soft_wrap=True)


def _of_run(what: "AttackSettings", run: Path, dtype: str | None) -> "AttackSettings":
    from ..stages.attacking_run import of_run

    found = of_run(run, what.prompts)
    return replace(
        what, base=found.base, checkpoints=found.checkpoints, rows=found.rows, judges=found.judges,
        dtype=dtype or found.dtype, device=what.device or found.device,
    )  # fmt: skip


def _columns(texts: Sequence[str]) -> dict[str, str]:
    from ...tasks.rows.reader import read_columns

    return {role: column for text in texts for role, column in read_columns(text).items()}


def _judges(texts: Sequence[str]) -> "tuple[JudgeSpec, ...]":
    from .judge import read_judge

    return tuple(read_judge(text) for text in texts)


def named_checkpoints(texts: Sequence[str]) -> dict[str, Path]:
    """Reads `lora=DIR` of each text.

    Raises:
        InputError: one is of another form, or a name comes twice.
    """
    from ..stages.geometry_rows import named_sources

    folders = named_sources(texts, "--checkpoint", "NAME=DIR, for example lora=runs/a/lora")
    return {name: Path(folder) for name, folder in folders.items()}


def read_searches(names: Sequence[str]) -> tuple["Search", ...]:
    """The searches of these names, each once.

    Raises:
        InputError: there is no such search.
    """
    from ...restore.attacks.suffix import SEARCHES

    for name in names:
        if name not in SEARCHES:
            raise InputError(f"--search {name}: there is no such search. {suggest(name, SEARCHES)}")
    return tuple(known for known in SEARCHES if known in names)


def _table(frame: "pd.DataFrame") -> Table:
    """Rates in percent with their intervals, and suffixes evaluated; no text of a request, a suffix or an answer."""
    table = Table("model", "search", box=SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        asr, difference = (_interval(row, name) for name in ("suffix_asr", "minus_base"))
        loss = f"{_number(row['loss_start'], 2)} → {_number(row['loss_end'], 2)}"
        shares = [_number(row[name]) for name in ("refusal_rate", "incoherent_rate", "target_greedy")]
        shown = loss if row["loss_end"] == row["loss_end"] else "-"
        tried = _number(row["evaluated"], 0)
        table.add_row(escape(row["model"]), row["search"], str(row["n"]), asr, difference, *shares, shown, tried)
    return table


def _interval(row: Mapping[Hashable, Any], name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "-" if value != value else f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _number(value: float, decimals: int = 1) -> str:
    return "-" if value != value else f"{value:.{decimals}f}"


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(attack)
