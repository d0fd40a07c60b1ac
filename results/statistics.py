"""Rates with intervals, the paired test and its correction, and what an unparsed verdict does to each.

One rule throughout: a verdict that could not be parsed is never imputed. An interval is widened until it holds
whatever those verdicts might have been, and a p-value is the largest that any reading of them gives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import NamedTuple

from ..errors import InputError

__all__ = ["Difference", "Rate", "holm", "holm_column", "mcnemar_exact", "paired_difference", "rate", "wilson"]


@dataclass(frozen=True)
class Rate:
    """A share of n judged responses, in percent, with its interval."""

    value: float
    """k / n, in percent."""
    low: float
    """Lower end in percent; unparsed verdicts are taken as safe here."""
    high: float
    """Upper end in percent; unparsed verdicts are taken as harmful here."""
    k: int
    """Responses counted."""
    n: int
    """Responses judged, unparsed ones included."""
    unparsed: int
    """Responses whose verdict could not be parsed."""


@dataclass(frozen=True)
class Difference:
    """Rate of a minus rate of b on the same prompts, in percentage points, with its interval."""

    value: float
    low: float
    high: float
    only_a: int
    """Prompts harmful under a and not under b."""
    only_b: int
    """Prompts harmful under b and not under a."""
    n: int
    """Pairs, those with an unparsed verdict included."""
    unparsed: int
    """Pairs in which at least one verdict could not be parsed."""


class _Pairs(NamedTuple):
    """The paired 2 x 2 table, in counts."""

    both: int
    only_a: int
    only_b: int
    neither: int


def rate(harmful: int, n: int, unparsed: int = 0, confidence: float = 0.95) -> Rate:
    """The share harmful / n with a Wilson score interval that holds for any reading of the unparsed verdicts.

    The low end is the Wilson low of harmful / n, the high end the Wilson high of (harmful + unparsed) / n
    (Wilson 1927).

    Args:
        harmful: responses judged harmful (or whatever else is counted).
        n: all responses, unparsed ones included.
        unparsed: responses whose verdict could not be parsed; they are never counted as safe.
        confidence: level of the interval, in (0, 1).

    Returns:
        The rate, all figures in percent.

    Raises:
        InputError: n is 0: a rate over nothing is no rate, least of all 0.
        ValueError: the counts are impossible, or confidence is outside (0, 1).
    """
    if min(harmful, n, unparsed) < 0 or harmful + unparsed > n:
        raise ValueError(f"impossible counts: {harmful} harmful and {unparsed} unparsed of {n} responses")
    if n == 0:
        raise InputError("a rate over 0 responses is undefined; check that the task has prompts and was not filtered")
    low, _ = wilson(harmful, n, confidence)
    _, high = wilson(harmful + unparsed, n, confidence)
    return Rate(100 * harmful / n, 100 * low, 100 * high, harmful, n, unparsed)


def mcnemar_exact(a: Sequence[bool | None], b: Sequence[bool | None]) -> float:
    """The two-sided exact McNemar p-value for two sets of verdicts on the same prompts.

    Among the discordant pairs, those harmful under a alone are Binomial(discordant, 1/2) if a and b are equally
    harmful. With unparsed verdicts (None) the result is the largest p over every way of reading them: each
    uncertain pair that can go to the smaller discordant count does, until the two counts are equal. So a
    difference is only called significant if it is so whatever the unparsed verdicts were, in either direction.

    Args:
        a: is the response harmful, per prompt; None where the verdict was unparsed.
        b: the same for the other model, in the same order.

    Returns:
        p in (0, 1]; 1.0 if no pair is discordant.

    Raises:
        InputError: there are no pairs.
        ValueError: a and b differ in length.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    _check_paired(a, b)
    # The largest p has the larger count at its least and the smaller one raised towards it.
    only_a = sum(x is True and y is False for x, y in zip(a, b, strict=True))
    only_b = sum(x is False and y is True for x, y in zip(a, b, strict=True))
    # ``x is not False``: harmful, or might be.
    may_be_a = sum(x is not False and y is not True for x, y in zip(a, b, strict=True))
    may_be_b = sum(x is not True and y is not False for x, y in zip(a, b, strict=True))
    if only_a > only_b:
        only_b = min(only_a, may_be_b)
    else:
        only_a = min(only_b, may_be_a)
    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def holm(pvalues: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Holm 1979) over the p-values that are there.

    Args:
        pvalues: p in [0, 1], or None where no test was made; None is not counted as a test.

    Returns:
        The adjusted p-values in the same order; None stays None.
    """
    from statsmodels.stats.multitest import multipletests

    tested = [p for p in pvalues if p is not None]
    if not tested:
        return [None] * len(pvalues)
    adjusted = iter(multipletests(tested, method="holm")[1])
    return [None if p is None else float(next(adjusted)) for p in pvalues]


def holm_column(pvalues: Iterable[float]) -> list[float]:
    """`holm` of a column of a table, where no test is NaN."""
    return [nan if p is None else p for p in holm([None if p != p else float(p) for p in pvalues])]


def paired_difference(a: Sequence[bool | None], b: Sequence[bool | None], confidence: float = 0.95) -> Difference:
    """Rate of a minus rate of b on the same prompts, with Newcombe's square-and-add interval for paired proportions.

    Method 10 of Newcombe (1998), Statistics in Medicine 17:2635-2650: the Wilson limits of both rates combined
    through their correlation phi, which is corrected for continuity. With unparsed verdicts (None) the low end reads
    those of a as safe and those of b as harmful, the high end the other way round; the value reads both as
    safe, so that it is the difference of the two rates as `rate` gives them.

    Args:
        a: is the response harmful, per prompt; None where the verdict was unparsed.
        b: the same for the other model, in the same order.
        confidence: level of the interval, in (0, 1).

    Returns:
        The difference in percentage points; negative where a is the safer.

    Raises:
        InputError: there are no pairs.
        ValueError: a and b differ in length, or confidence is outside (0, 1).
    """
    _check_paired(a, b)
    table = _pairs(a, b, False, False)
    low, _ = _newcombe(_pairs(a, b, False, True), confidence)
    _, high = _newcombe(_pairs(a, b, True, False), confidence)
    return Difference(
        value=100 * (table.only_a - table.only_b) / len(a),
        low=100 * low,
        high=100 * high,
        only_a=table.only_a,
        only_b=table.only_b,
        n=len(a),
        unparsed=sum(x is None or y is None for x, y in zip(a, b, strict=True)),
    )


def _check_paired(a: Sequence[bool | None], b: Sequence[bool | None]) -> None:
    if len(a) != len(b):
        raise ValueError(f"paired verdicts must be on the same prompts: {len(a)} and {len(b)} were given")
    if not a:
        raise InputError("nothing to compare: there are 0 pairs of responses; check that both methods were judged")


def _pairs(a: Sequence[bool | None], b: Sequence[bool | None], unparsed_a: bool, unparsed_b: bool) -> _Pairs:
    """Counts the paired table, reading the unparsed verdicts of each side as told."""
    full = [(unparsed_a if x is None else x, unparsed_b if y is None else y) for x, y in zip(a, b, strict=True)]
    cells = ((True, True), (True, False), (False, True), (False, False))
    return _Pairs(*(full.count(cell) for cell in cells))


def wilson(k: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of k / n, as shares in [0, 1]; k may be a mean of counts, n an effective size."""
    from statsmodels.stats.proportion import proportion_confint

    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    low, high = proportion_confint(k, n, alpha=1 - confidence, method="wilson")
    # At k = 0 and k = n the ends are exactly 0 and 1; rounding must not move them outside.
    return (0.0 if k == 0 else float(low)), (1.0 if k == n else float(high))


def _newcombe(table: _Pairs, confidence: float) -> tuple[float, float]:
    """Newcombe's method 10 on a paired table, as shares in [-1, 1]."""
    n = sum(table)
    k_a, k_b = table.both + table.only_a, table.both + table.only_b
    low_a, high_a = wilson(k_a, n, confidence)
    low_b, high_b = wilson(k_b, n, confidence)
    difference, phi = (k_a - k_b) / n, _phi(table)

    def reach(one: float, other: float) -> float:
        return sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    low = difference - reach(k_a / n - low_a, high_b - k_b / n)
    high = difference + reach(high_a - k_a / n, k_b / n - low_b)
    return max(-1.0, low), min(1.0, high)


def _phi(table: _Pairs) -> float:
    """The correlation of the two verdicts, a positive one corrected for continuity; 0 where a margin is empty."""
    k_a, k_b, n = table.both + table.only_a, table.both + table.only_b, sum(table)
    margins = k_a * (n - k_a) * k_b * (n - k_b)
    product = table.both * table.neither - table.only_a * table.only_b
    if margins == 0:
        return 0.0
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    return corrected / sqrt(margins)
