"""`safebasin audit`: published tables, put through the checks of `results/audit.py`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ...results.audit import Number, audit_pairs, differing, published, reachable, read_numbers, repeated, times

__all__ = ["show"]

ALPHA = 0.05


def show(path: Path | None, sizes: Sequence[int], console: Console) -> None:
    """Prints what each check finds.

    Args:
        path: the CSV; None for the paper's tables.
        sizes: numbers of prompts that a rate may have been taken over.
        console: where to.

    Raises:
        InputError: a table cannot be read, or names numbers that are not there.
    """
    numbers = [number for each in ([path] if path else published()) for number in read_numbers(each)]
    sections = (
        ("Can each rate arise from n prompts?", _rates(numbers, sizes)),
        ("Do rows repeat?", _repeats(numbers)),
        ("Do times add up?", _times(numbers)),
        ("Does the text say what the tables say?", _texts(numbers)),
        ("Which differences lie within noise?", _noise(numbers, sizes)),
    )
    console.print(Text(f"{len(numbers)} numbers of {', '.join(dict.fromkeys(number.table for number in numbers))}"))
    for heading, lines in sections:
        console.print(Text(f"\n{heading}", style="bold"))
        for line in list(lines) or ["nothing found"]:
            console.print(Text(f"  {line}"), soft_wrap=True)
    console.print(Text("\nWhat each check can and cannot say: docs/audit.md", style="dim"))


def _rates(numbers: Sequence[Number], sizes: Sequence[int]) -> Iterator[str]:
    rates = dict.fromkeys(number.value for number in numbers if number.unit == "percent_prompts")
    for n in sizes:
        no = [value for value in rates if not reachable(value, n)]
        yield f"n = {n}: {len(rates) - len(no)} of {len(rates)} distinct rates can; not {_list(no)}"
    if none := [value for value in rates if not any(reachable(value, n) for n in sizes)]:
        yield f"at none of these n: {_list(none)}"


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "-"


def _repeats(numbers: Sequence[Number]) -> Iterator[str]:
    for one, other, columns in repeated(numbers):
        yield f"{one} and {other} agree in {', '.join(columns)}"


def _times(numbers: Sequence[Number]) -> Iterator[str]:
    for total, most, least in times(numbers):
        yield (
            f"{total.name} is {total.value} {total.unit} (at most {most:.0f} s), its parts take at least {least:.0f} s "
            f"({least / 60:.1f} min)"
        )


def _texts(numbers: Sequence[Number]) -> Iterator[str]:
    for one, other in differing(numbers):
        yield f"{one.name} is {one.value}, {other.name} is {other.value}"


def _noise(numbers: Sequence[Number], sizes: Sequence[int]) -> Iterator[str]:
    by_size = [audit_pairs(numbers, n) for n in sizes]
    for n, pairs in zip(sizes, by_size, strict=True):
        within = sum(pair.p >= ALPHA for pair in pairs)
        yield f"n = {n}: {within} of {len(pairs)} differences have p >= {ALPHA:g} (Fisher)"
    if any(by_size):
        yield "first p: Fisher; second: the least that an exact paired test could give if the prompts were the same"
    for same in zip(*by_size, strict=True):
        if any(pair.p >= ALPHA for pair in same):
            a, b = same[0].a, same[0].b
            shown = ", ".join(f"n = {pair.n}: {pair.p:.3f} / {pair.p_least:.3f}" for pair in same)
            yield f"{a.table}, {a.group}, {a.column}: {a.row} {a.value} and {b.row} {b.value}: {shown}"
