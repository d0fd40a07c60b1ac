"""`safebasin power`: how small a difference n prompts show, and how many prompts a difference needs."""

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import InputError
from ...results.power import discordant, fewest_flips, mcnemar_power, sample_size, smallest_difference

__all__ = ["NUMBERS", "RATES", "detectable", "show_sizes", "show_table"]

NUMBERS = (200, 382, 520)
"""Our nested AdvBench subset and the sandbox's requests; AdvBench without the safety rows; all of AdvBench."""
RATES = (0.0, 1.0, 3.0, 5.0, 10.0, 25.0, 50.0)
"""Percent."""
OVERLAPS = (0.0, 1.0)


def show_table(numbers: Iterable[int], power: float, alpha: float, console: Console) -> None:
    """Prints the smallest detectable rise and fall by number of prompts and rate.

    Args:
        numbers: of prompts.
        power: percent.
        alpha: level of the test.
        console: where to.

    Raises:
        InputError: a number lies outside its range.
    """
    _check(power, alpha)
    table = _table(["n", "overlap", *(f"from {rate:g} %" for rate in RATES)])
    for n in numbers:
        for overlap in OVERLAPS:
            cells = [detectable(n, rate, overlap, power, alpha) for rate in RATES]
            table.add_row(str(n), f"{overlap:g}", *cells)
    console.print(Text(f"Smallest rise and fall that n prompts show, in percentage points ({power:g} % power)"))
    console.print(table)
    for line in notes(alpha):
        console.print(Text(line, style="dim"))


def show_sizes(rate: float, other: float, numbers: Iterable[int], power: float, alpha: float, console: Console) -> None:
    """Prints how many prompts tell two rates apart, and the power of the numbers given.

    Args:
        rate: percent.
        other: percent.
        numbers: of prompts.
        power: percent.
        alpha: level of the test.
        console: where to.

    Raises:
        InputError: a number lies outside its range, or the rates are equal.
    """
    _check(power, alpha)
    table = _table(["overlap", "n needed", *(f"power at {n}" for n in numbers)])
    for overlap in OVERLAPS:
        parts = discordant(rate / 100, other / 100, overlap)
        needed = sample_size(rate / 100, other / 100, overlap, power / 100, alpha)
        table.add_row(f"{overlap:g}", str(needed), *(f"{100 * mcnemar_power(n, *parts, alpha):.0f} %" for n in numbers))
    console.print(Text(f"Prompts that tell {rate:g} % from {other:g} % with {power:g} % power"))
    console.print(table)
    for line in notes(alpha):
        console.print(Text(line, style="dim"))


def detectable(n: int, rate: float, overlap: float, power: float = 80.0, alpha: float = 0.05) -> str:
    """The smallest rise and fall from a rate in percent, as `+4.7 −2.6`; a dash where there is none."""
    shown = []
    for rise, sign in ((True, "+"), (False, "−")):
        found = smallest_difference(n, rate / 100, rise, overlap, power / 100, alpha)
        shown.append("-" if found is None else f"{sign}{100 * found:.1f}")
    return " ".join(shown)


def notes(alpha: float) -> Sequence[str]:
    """What the figures rest on."""
    worlds = fewest_flips(alpha)  # a sign-flip test over W worlds is that of W prompts all one way: p = 2 / 2^W
    return (
        f"Two-sided exact McNemar test at p <= {alpha:g}, the same prompts for both models, one test. It takes at "
        f"least {fewest_flips(alpha)} prompts that differ, all one way.",
        "overlap 0: the two fail on unrelated prompts; 1: wherever the better one fails, the worse one does too. "
        "Fine-tunings of one model lie between; plan with 0.",
        "This is about two given models. For a claim about the next fine-tuning or world those are the units: "
        f"{worlds} at least, as no p over W of them is below 2 / 2^W.",
    )


def _check(power: float, alpha: float) -> None:
    if not 0 < power < 100:
        raise InputError(f"--power {power:g} is no percentage between 0 and 100, for example 80.")
    if not 0 < alpha < 1:
        raise InputError(f"--alpha {alpha:g} is no level between 0 and 1, for example 0.05.")


def _table(heads: Sequence[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for head in heads:
        table.add_column(Text(head), justify="right")
    return table
