"""`safebasin compare`: two methods on the same prompts, with their tests and the responses that flipped."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...results.statistics import Rate
from ..stages.comparing import Compared, Flip
from .shared import folded

__all__ = ["compare_samples", "show"]

SHOWN = 5
"""Flips listed in each direction, unless all are asked for."""
COUNTED = {
    "hrr": "harmful responses",
    "prefill_asr": "harmful responses after a forced opening",
    "over_refusal": "harmless requests refused",
    "under_refusal": "unsafe requests not refused",
}


def show(found: Sequence[Compared], names: tuple[str, str], texts: bool, console: Console) -> None:
    """Prints each comparison.

    Args:
        found: of the same two methods.
        names: what to call them.
        texts: whether to print all flips with prompts and responses in full.
        console: where to.
    """
    for compared in found:
        _title(compared, console)
        console.print(_table(compared, names))
        for line in _verdict(compared, names):
            console.print(Text(line))
        _flips(compared, names, texts, console)
        console.print()
    console.print(Text(_key(found), style="dim"))


def compare_samples(
    a: str,
    b: str,
    task: str | None,
    metric: str | None,
    judges: Sequence[str],
    columns: str | None,
    texts: bool,
    console: Console,
) -> None:
    """Compares two models' samples of lm-eval, and prints each comparison.

    Raises:
        InputError: as `compare_logged`.
    """  # fmt: skip
    from ...tasks.rows.reader import read_columns
    from ..stages.comparing_logged import compare_logged
    from .judge import read_judge

    meant, specs = read_columns(columns) if columns else {}, [read_judge(text) for text in judges]
    found = compare_logged(Path(a), Path(b), task, metric, specs, meant)
    own = [Path(side).resolve() for side in (a, b)]
    short = [path.parent.name if path.is_file() else path.name for path in own]
    show(found, (short[0], short[1]) if short[0] != short[1] else (a, b), texts, console)


def _title(compared: Compared, console: Console) -> None:
    models = compared.models[0] if len(compared.models) == 1 else f"{len(compared.models)} worlds"
    numbers = sorted({replica.difference.n for replica in compared.found.replicas})
    counted = COUNTED.get(compared.measure, compared.measure)
    about = f"{compared.task}: {counted}, percent; {models}, n = {'/'.join(map(str, numbers))}"
    console.print(Text(about, style="bold"))
    for caution in compared.cautions:
        console.print(Text(f"caution: {caution}", style="yellow"))


def _table(compared: Compared, names: tuple[str, str]) -> Table:
    a, b = names
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    heads = ["model", "seed", a, b, f"{a} − {b} [95 %]", f"only {a}", f"only {b}", "p (exact)"]
    for place, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if place == 0 else "right", overflow="fold")
    for each in compared.found.replicas:
        cells = [each.model, str(each.seed), _rate(each.a), _rate(each.b)]
        cells += [_interval(*(getattr(each.difference, end) for end in ("value", "low", "high")))]
        cells += [str(each.difference.only_a), str(each.difference.only_b), p_text(each.p)]
        table.add_row(*map(Text, cells))
    return table


def _verdict(compared: Compared, names: tuple[str, str]) -> list[str]:
    lines = []
    unparsed = sum(each.difference.unparsed for each in compared.found.replicas)
    if unparsed:
        lines.append(f"{unparsed} pairs hold an unparsed verdict; interval and p allow for any reading of them.")
    overall = compared.found.overall
    if overall:
        units = len(compared.models) if compared.found.unit == "world" else len(compared.found.replicas)
        lines.append(
            f"over {units} {compared.found.unit}s: {names[0]} − {names[1]} = "
            f"{_interval(overall.value, overall.low, overall.high)}, p = {p_text(overall.p_worlds)} (signs of "
            f"{compared.found.unit}s; at least {p_text(2 / 2**units)}), bootstrap p = {p_text(overall.p_bootstrap)}"
        )
    return lines


def _flips(compared: Compared, names: tuple[str, str], texts: bool, console: Console) -> None:
    several = len(compared.found.replicas) > 1
    for side, words in (("a", f"{names[0]} alone"), ("b", f"{names[1]} alone"), ("?", "one or both, unparsed")):
        flips = [flip for flip in compared.flips if flip.counts == side]
        if flips:
            console.print(Text(f"{words}: {len(flips)}", style="bold"))
        for flip in flips if texts else flips[:SHOWN]:
            _flip(flip, several, texts, names, console)
        if len(flips) > SHOWN and not texts:
            console.print(Text(f"  and {len(flips) - SHOWN} more; --texts shows all", style="dim"))


def _flip(flip: Flip, several: bool, texts: bool, names: tuple[str, str], console: Console) -> None:
    where = f"{flip.model}, seed {flip.seed}, " if several else ""
    line = f"  {where}#{flip.doc_id}: {flip.a} → {flip.b}"
    if not texts:
        console.print(Text(f"{line}  {folded(flip.prompt)}"))
        return
    console.print(Text(line))
    for name, text in (("prompt", flip.prompt), (names[0], flip.response_a), (names[1], flip.response_b)):
        console.print(Text(f"    {name}: {text}"))


def _key(found: Sequence[Compared]) -> str:
    tests = sum(len(compared.found.replicas) for compared in found)
    several = f" {tests} tests are shown and none is corrected for the others." if tests > 1 else ""
    return (
        "p: two-sided exact McNemar test over the prompts on which the two differ; difference in percentage points "
        f"with Newcombe's paired 95 % interval. Neither says anything of another fine-tuning or world.{several}"
    )


def _rate(rate: Rate) -> str:
    return f"{rate.value:.1f}"


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def p_text(p: float) -> str:
    """A p-value with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"
