"""`safebasin export`: a run in the formats of others."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from ...errors import InputError
from ...registry import suggest
from .shared import StoreOption, console_of_output

if TYPE_CHECKING:
    from ...results.model_card import Benchmark

__all__ = ["add_to", "read_benchmarks"]

FORMATS = ("latex", "lm-eval", "model-card")


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Run folder.")],
    kind: Annotated[str, typer.Option("--format", help="latex, lm-eval or model-card.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where to: a .tex file, or a folder (default: in the run folder)."),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            "--benchmark",
            metavar="TASK=OWNER/DATASET:ID",
            help="With model-card: the hub's benchmark of a task, for .eval_results; may be repeated.",
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Writes a run in another format."""
    from ..terminal.quiet import quiet

    if kind not in FORMATS:
        raise InputError(f"--format {kind}: there is no such format. {suggest(kind, FORMATS)}")
    if benchmark and kind != "model-card":
        raise InputError("--benchmark goes with --format model-card alone.")
    quiet()
    if kind == "latex":
        written = [_latex(folder, output or folder / "leaderboard.tex", store)]
    elif kind == "lm-eval":
        from ..stages.lm_eval_files import export_lm_eval

        written = export_lm_eval(folder, output or folder / "lm-eval", store)
    else:
        written = _cards(folder, output or folder / "model-cards", store, benchmark or ())
    console = console_of_output()
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)


def _latex(folder: Path, path: Path, store: Path | None) -> Path:
    from ...results.export import make_folder, replace_text
    from ...results.latex import latex_table
    from ..stages.loaded import load_run

    make_folder(path.parent)
    replace_text(path, latex_table(load_run(folder, store).leaderboard))
    return path


def _cards(folder: Path, output: Path, store_path: Path | None, benchmarks: Sequence[str]) -> list[Path]:
    from ..stages.cards import export_cards
    from ..stages.folder import load_plan, read_store
    from ..stages.report import results_of

    known = read_benchmarks(benchmarks)
    plan = load_plan(folder)
    with closing(read_store(folder, store_path)) as store:
        return export_cards(plan, folder, results_of(plan, folder, store), store, output, known)


def read_benchmarks(texts: Sequence[str]) -> "dict[str, Benchmark]":
    """Reads `gsm8k=openai/gsm8k:gsm8k`.

    Raises:
        InputError: one is of another form.
    """
    from ...results.model_card import Benchmark

    found = {}
    for text in texts:
        task, equals, where = text.partition("=")
        dataset, colon, name = where.partition(":")
        if not (task and equals and colon and name and dataset.count("/") == 1 and all(dataset.split("/"))):
            raise InputError(
                f"--benchmark '{text}' is not of the form TASK=OWNER/DATASET:ID, for example gsm8k=openai/gsm8k:gsm8k. "
                "ID is that of the task in the data set's eval.yaml on the hub."
            )
        found[task] = Benchmark(dataset, name)
    return found


def add_to(app: typer.Typer) -> None:
    """Adds the command; its help opens with an example, which the tests run."""
    what = "Writes a run as a LaTeX table, as lm-eval's own files, or as model cards for the Hugging Face hub."
    text = f"Example: safebasin export runs/sandbox --format latex\n\n{what}"
    app.command(help=text, short_help=what)(export)
