"""What n prompts can show of two models that answer the same ones: the power of the exact McNemar test.

Rates alone do not say how often two models differ on a prompt. `overlap` does: 0 where they fail on unrelated prompts,
1 where every prompt on which the better one fails is one on which the worse one fails too. Power lies between the two
unless failures repel each other; fine-tunings of one model are nearer to 1.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["discordant", "fewest_flips", "mcnemar_power", "sample_size", "smallest_difference"]

Array = NDArray[Any]

TAIL = 1e-12
"""Numbers of discordant prompts rarer than this are left out of the sums."""
MOST = 1_000_000
"""Prompts beyond which no sample size is looked for."""


def discordant(a: float, b: float, overlap: float = 0.0) -> tuple[float, float]:
    """Chance that a prompt counts under a alone, and under b alone.

    Args:
        a: rate of one model, in [0, 1].
        b: of the other.
        overlap: see above, in [0, 1].

    Raises:
        InputError: one of them lies outside [0, 1].
    """
    for name, value in (("rate", a), ("rate", b), ("overlap", overlap)):
        if not 0 <= value <= 1:
            raise InputError(f"The {name} {value:g} is no share: give one from 0 to 1 (rates from 0 to 100 %).")
    both = a * b + overlap * (min(a, b) - a * b)
    return a - both, b - both


def mcnemar_power(n: int, only_a: float, only_b: float, alpha: float = 0.05) -> float:
    """Chance that the two-sided exact McNemar test of n prompts has p <= alpha.

    Unconditional: the number of discordant prompts is Binomial(n, only_a + only_b), and of these those under a alone
    are Binomial again; both are summed over, nothing is approximated or drawn.

    Args:
        n: prompts.
        only_a: chance that a prompt counts under a alone.
        only_b: the same of b.
        alpha: level of the test.
    """
    from scipy.stats import binom

    differ = only_a + only_b
    if differ <= 0:
        return 0.0
    numbers = np.arange(binom.ppf(TAIL, n, differ), binom.isf(TAIL, n, differ) + 1)
    most = _critical(n, alpha)[numbers.astype(int)]
    rejected = binom.cdf(most, numbers, only_a / differ) + binom.cdf(most, numbers, only_b / differ)
    return float((binom.pmf(numbers, n, differ) * rejected).sum())


@lru_cache(maxsize=4096)
def _critical(n: int, alpha: float) -> Array:
    """[n + 1]: of so many discordant prompts, the most on the rarer side with which p <= alpha; -1 for none."""
    from scipy.stats import binom

    numbers = np.arange(n + 1)
    most = binom.ppf(alpha / 2, numbers, 0.5)
    most = np.where(binom.cdf(most, numbers, 0.5) <= alpha / 2, most, most - 1)
    return np.asarray(np.where(numbers == 0, -1, most))


def fewest_flips(alpha: float = 0.05) -> int:
    """How many prompts must differ, all one way, before the exact test can have p <= alpha."""
    return int(np.ceil(1 - np.log2(alpha)))


def smallest_difference(
    n: int, rate: float, rise: bool, overlap: float = 0.0, power: float = 0.8, alpha: float = 0.05
) -> float | None:
    """The smallest rise or fall from `rate` that n prompts show with the given power.

    Args:
        n: prompts.
        rate: where it starts, in [0, 1].
        rise: whether the other rate is the larger one.
        overlap: as in `discordant`.
        power: chance that the test shows it.
        alpha: level of the test.

    Returns:
        The difference as a share; None where not even the largest one there is has the power.
    """
    from scipy.optimize import brentq

    largest = 1 - rate if rise else rate

    def lacking(difference: float) -> float:
        other = rate + difference if rise else rate - difference
        return mcnemar_power(n, *discordant(min(1.0, max(0.0, other)), rate, overlap), alpha) - power

    if largest <= 0 or lacking(largest) < 0:
        return None
    return float(brentq(lacking, 0.0, largest, xtol=1e-6))


def sample_size(a: float, b: float, overlap: float = 0.0, power: float = 0.8, alpha: float = 0.05) -> int:
    """How many prompts show the difference between two rates.

    The power of an exact test goes up with n in small waves; the number given is behind the last one that falls short
    within the next twentieth.

    Args:
        a: one rate, in [0, 1].
        b: the other.
        overlap: as in `discordant`.
        power: chance that the test shows it.
        alpha: level of the test.

    Raises:
        InputError: the rates are equal, or so near that more than a million prompts would be needed.
    """
    parts = discordant(a, b, overlap)

    def enough(n: int) -> bool:
        return mcnemar_power(n, *parts, alpha) >= power

    high = fewest_flips(alpha)
    while not enough(high):
        high *= 2
        if high > MOST or a == b:
            raise InputError(f"No {MOST} prompts tell {100 * a:g} % from {100 * b:g} %. Give rates further apart.")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return 1 + max([high - 1, *(n for n in range(high, high + high // 20 + 1) if not enough(n))])
