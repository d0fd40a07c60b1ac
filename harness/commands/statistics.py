"""The commands of statistics: two methods compared, sample sizes, and checks of published tables."""

from pathlib import Path
from typing import Annotated

import typer

from ...errors import InputError
from .shared import StoreOption, add_command, console_of_output

__all__ = ["add_to"]


def compare(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR A B", help="Run folder and two methods; DIR:METHOD DIR:METHOD; or lm-eval's samples."
        ),
    ],
    task: Annotated[str | None, typer.Option("--task", help="One judged task (default: all that both have).")] = None,
    texts: Annotated[
        bool, typer.Option("--texts", help="All flips, with prompts and responses in full: may be harmful text.")
    ] = False,
    store: StoreOption = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Of lm-eval's samples: a score that is 0 or 1 (default: the first).")
    ] = None,
    judges: Annotated[
        list[str] | None,
        typer.Option(
            "--judge", metavar="J", help="Of lm-eval's samples: what judges them now, as in `safebasin judge`."
        ),
    ] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", metavar="prompt=FIELD", help="The prompt in lm-eval's documents.")
    ] = None,
) -> None:
    """Compares two methods prompt by prompt."""
    from ..stages.comparing import compare as compare_rows
    from ..stages.comparing import sides_of
    from ..stages.logged import is_logged
    from .compare import compare_samples, show

    if len(what) == 2 and all(is_logged(Path(side)) for side in what):
        compare_samples(what[0], what[1], task, metric, judges or [], columns, texts, console_of_output())
        return
    if metric or judges or columns:
        raise InputError("--metric, --judge and --columns are for two files or folders of lm-eval's samples_*.jsonl.")
    a, b = sides_of(what)
    names = (a.method, b.method) if a.method != b.method else (str(a), str(b))
    show(compare_rows(*what, task=task, store=store), names, texts, console_of_output())


def power(
    rate: Annotated[float | None, typer.Option("--rate", min=0, max=100, help="One rate, in percent.")] = None,
    other: Annotated[
        float | None, typer.Option("--other", min=0, max=100, help="The other rate: prints how many prompts they need.")
    ] = None,
    n: Annotated[
        list[int] | None, typer.Option("--n", min=1, max=100_000, help="Prompts; may be repeated (200, 382 and 520).")
    ] = None,
    wanted: Annotated[float, typer.Option("--power", help="Chance of seeing the difference, in percent.")] = 80.0,
    alpha: Annotated[float, typer.Option("--alpha", help="Level of the test.")] = 0.05,
) -> None:
    """Sample sizes for paired rates."""
    from .power import NUMBERS, show_sizes, show_table

    if (rate is None) != (other is None):
        raise InputError("--rate and --other go together. Give both rates, or neither for the table.")
    if rate is None or other is None:
        show_table(n or NUMBERS, wanted, alpha, console_of_output())
    else:
        show_sizes(rate, other, n or NUMBERS, wanted, alpha, console_of_output())


def audit(
    table: Annotated[
        Path | None, typer.Argument(metavar="[CSV]", help="See docs/audit.md (default: the paper's tables).")
    ] = None,
    n: Annotated[
        list[int] | None, typer.Option("--n", min=1, max=100_000, help="Prompts; may be repeated (382, 200 and 520).")
    ] = None,
) -> None:
    """Checks published tables."""
    from ...results.audit import NUMBERS
    from .audit import show

    show(table, n or NUMBERS, console_of_output())


def add_to(app: typer.Typer) -> None:
    """Adds the commands; the help of each opens with an example, which the tests run."""
    for command, example, what in (
        (
            compare,
            "compare runs/sandbox lora curvature --task sandbox_hrr",
            "Compares two methods prompt by prompt: exact test, interval of the difference, responses that flipped.",
        ),
        (
            power,
            "power --rate 3 --other 8",
            "Sample sizes: how small a difference n prompts show, and how many prompts a difference needs.",
        ),
        (
            audit,
            "audit --n 200",
            "Puts published tables through checks: reachable rates, repeated rows, times, differences within noise.",
        ),
    ):
        add_command(app, command, example, what)
