"""The command that judges again: a finished run, logged samples of lm-eval, or labelled rows."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError
from .shared import StoreOption, add_command, console_of_output

__all__ = ["add_to"]


def judge(
    where: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Run folder; or lm-eval's samples_*.jsonl, or their folder.")
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option("--judge", metavar="J", help="A judge: NAME, or NAME={setting: value}; may be repeated."),
    ] = None,
    check: Annotated[
        str | None, typer.Option("--check", metavar="J", help="Tries this judge on labelled rows instead.")
    ] = None,
    rows: Annotated[
        str | None, typer.Option("--rows", help="With --check: a file with columns prompt, response and harmful.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="ROLE=COLUMN,...", help="What columns are, where their names do not tell."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Of lm-eval's samples: where the files go (default: beside them).")
    ] = None,
    store: StoreOption = None,
) -> None:
    """Judges again; nothing is generated."""
    from ...tasks.rows.reader import read_columns
    from .judge import check_judge, judge_run, judge_samples, read_judge

    meant = {role: column for text in columns or [] for role, column in read_columns(text).items()}
    if check is not None:
        if rows is None or where is not None or judges:
            raise InputError("--check takes --rows and nothing else, for example --check keywords --rows labelled.csv.")
        check_judge(read_judge(check, "--check"), rows, meant, console_of_output())
        return
    if where is None or not judges or rows is not None:
        raise InputError(
            "Give a run folder and a judge (safebasin judge runs/sandbox --judge keywords), or labelled rows "
            "(safebasin judge --check keywords --rows labelled.csv)."
        )
    specs = [read_judge(text) for text in judges]
    if (where / "plan.json").is_file():
        if output is not None or meant:
            raise InputError(f"{where} is a run folder: --output and --columns are for lm-eval's samples.")
        judge_run(where, specs, console_of_output(), store)
    else:
        judge_samples(where, specs, meant, output, console_of_output())


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(
        app,
        judge,
        "judge runs/sandbox --judge 'keywords={list: gcg29}'",
        "Judges a finished run, or lm-eval's samples, by a further judge; or checks a judge against labels.",
    )
