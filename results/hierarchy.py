"""Means over worlds and fine-tunings with intervals, and paired differences: the hierarchical bootstrap.

Throughout, a measure of one method is an array [worlds, fine-tunings, prompts], or [worlds, fine-tunings] where nothing
is known per prompt. Worlds are the unit of replication: what is claimed of a method is claimed of the next world.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Comparison", "Estimate", "Resampling", "compare", "estimate", "sign_flip"]

Array = NDArray[Any]

RESAMPLES = 10_000
SEED = 0
MOST_PROMPTS = 2_000
BUNDLES = 1_000
"""More prompts than so many are drawn in so many bundles: as [resamples, prompts], weights would fill the memory."""
EXACT = 16
"""Up to this many worlds, the sign-flip test goes through all 2^worlds patterns of signs."""


class Estimate(NamedTuple):
    """A mean with its interval, in the measure's own unit."""

    value: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Mean of one method minus mean of another in the same worlds, with its interval and two p-values."""

    value: float
    low: float
    high: float
    p_bootstrap: float
    p_worlds: float
    """Of the sign-flip test over worlds: the conservative one."""


@dataclass(frozen=True)
class Resampling:
    """The draws that all measures and methods of a table share, so that their differences are paired.

    Worlds are drawn with replacement; within each world drawn, its fine-tunings; and, independently of both, prompts.
    A prompt drawn brings its responses in all worlds and fine-tunings (crossed: Owen 2007, "The pigeonhole bootstrap"):
    fine-tunings of a world answer the same prompts, and what is hard for one of them is hard for the others; drawing
    prompts anew within each would pass them off as so many more. Where worlds have prompts of their own, those at the
    same places are drawn, which does no harm. What there is only one of is not drawn, and intervals say nothing of it.
    As in every bootstrap of several levels, the lower ones are counted again in the upper ones: intervals are,
    if anything, too wide (Davison and Hinkley 1997, section 3.8).
    """

    worlds: int
    finetunings: int
    resamples: int = RESAMPLES
    seed: int = SEED
    _prompts: dict[int, Array] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def rows(self) -> Array:
        """[resamples, worlds, fine-tunings]: the weight of each fine-tuning in each mean; they add up to 1."""
        random = np.random.default_rng([self.seed, 0])
        shape = (self.resamples, self.worlds, self.finetunings)
        world = random.integers(self.worlds, size=shape[:2])[..., None]
        drawn = world * self.finetunings + random.integers(self.finetunings, size=shape)
        size = self.worlds * self.finetunings
        flat = drawn.reshape(self.resamples, size) + size * np.arange(self.resamples)[:, None]
        return np.bincount(flat.ravel(), minlength=self.resamples * size).reshape(shape) / size

    @property
    def _flat(self) -> Array:
        return np.asarray(self.rows.reshape(self.resamples, -1))

    def prompts(self, number: int) -> Array:
        """[resamples, number]: the weight of each prompt; the same on every call."""
        if number not in self._prompts:
            random = np.random.default_rng([self.seed, 1, number])
            drawn = random.multinomial(number, np.full(number, 1 / number), size=self.resamples)
            self._prompts[number] = drawn / number
        return self._prompts[number]

    def means(self, values: Array) -> Array:
        """[resamples]: the mean in each draw of values [worlds, fine-tunings] or [worlds, fine-tunings, prompts]."""
        if values.ndim == 2:
            return np.asarray(self._flat @ values.ravel())
        values = _bundled(values)
        prompts = values.shape[2]
        drawn = self.prompts(prompts) @ values.reshape(-1, prompts).T
        return np.asarray((self._flat * drawn).sum(1))

    def interval(self, values: Array, means: Array | None = None, confidence: float = 0.95) -> tuple[float, float]:
        """The expanded percentile interval of the mean of values, as in `means`.

        Percentiles are too narrow for few units: the variance of n values drawn from n is too small by (n - 1) / n, and
        a normal quantile is no t quantile. So they are taken at the level of -sqrt(n / (n - 1)) t (Hesterberg 2015,
        "What Teachers Should Know About the Bootstrap", section 4.1), n being the worlds, or the fine-tunings of an
        only world. As prompts are many, this is done to the share of the variance that remains when prompts are not
        drawn, and t has the degrees of freedom of the two together (Satterthwaite 1946).

        Args:
            values: what the interval is of.
            means: `means(values)`, where they are at hand.
            confidence: level, in (0, 1).
        """
        means = self.means(values) if means is None else means
        tail = self.tail(values, means, confidence)
        low, high = np.quantile(means, [tail, 1 - tail])
        return float(low), float(high)

    def tail(self, values: Array, means: Array, confidence: float = 0.95) -> float:
        """The share of the draws that `interval` leaves out at either end."""
        from scipy.stats import norm, t

        tail = (1 - confidence) / 2
        factor, freedom = self._few_units(values, float(means.var()))
        return float(norm.cdf(factor * t.ppf(tail, freedom))) if factor > 1 else tail

    def _few_units(self, values: Array, variance: float) -> tuple[float, float]:
        """(how much wider the interval must be, degrees of freedom); a factor of 1 where nothing needs to be done."""
        units = self.worlds if self.worlds > 1 else self.finetunings
        if units == 1 or variance <= 0:
            return 1.0, float("inf")
        upper = variance if values.ndim == 2 else min(variance, float(self.means(values.mean(2)).var()))
        corrected = upper * units / (units - 1)
        lower = variance - upper
        lowest = lower**2 / (values.shape[2] - 1) if values.ndim == 3 and values.shape[2] > 1 else 0.0
        total = corrected + lower
        return float(np.sqrt(total / variance)), total**2 / (corrected**2 / (units - 1) + lowest)


def _bundled(values: Array) -> Array:
    """Values [worlds, fine-tunings, prompts] of `BUNDLES` bundles of neighbours in place of very many prompts.

    A bundle stands for the sum of its prompts' deviations from the mean, scaled so that the mean of bundles, drawn as
    prompts are, has the mean and the variance of the mean of prompts, whether or not bundles are of one size.
    """
    number = values.shape[2]
    if number <= MOST_PROMPTS:
        return values
    mean = values.mean(2, keepdims=True)
    starts = np.arange(BUNDLES) * number // BUNDLES
    return np.asarray(np.add.reduceat(values - mean, starts, axis=2) * (BUNDLES / number) + mean)


def estimate(values: Array, draws: Resampling, most: Array | None = None) -> Estimate:
    """The mean over worlds, fine-tunings and prompts with its 95 % interval.

    Args:
        values: [worlds, fine-tunings] or [worlds, fine-tunings, prompts]; of per-prompt outcomes 0 or 100.
        draws: shared by all that is compared.
        most: `values` with unparsed verdicts counted as harm; it decides the high end, as in `statistics.rate`.
    """
    most = values if most is None else most
    low, high = draws.interval(values)
    if most is not values:
        high = draws.interval(most)[1]
    if values.ndim == 3 and values.min() == values.max() and most.min() == most.max():
        low, high = _when_all_agree(values, most)
    return Estimate(float(values.mean()), low, high)


def _when_all_agree(values: Array, most: Array) -> tuple[float, float]:
    """Drawing from responses that are all alike shows nothing, which is not to say that the next one must be, too.

    Then the interval is Wilson's with n = prompts, as if all worlds and fine-tunings were one.
    """
    from .statistics import wilson

    number = values.shape[2]
    ends = (wilson(float(each.mean()) / 100 * number, number) for each in (values, most))
    (low, _), (_, high) = ends
    return 100 * low, 100 * high


def compare(a: tuple[Array, Array], b: tuple[Array, Array], draws: Resampling) -> Comparison:
    """Mean of a minus mean of b under the same draws of worlds, fine-tunings and prompts.

    `p_bootstrap` is two-sided: twice the smaller share of draws on either side of 0, (k + 1) / (resamples + 1). It
    trusts the draws' spread, which is too small for few worlds. `p_worlds` is `sign_flip` over the worlds' differences.
    Unparsed verdicts: the low end and the high end read those of a and b in opposite ways, p is the larger of the two
    readings', and 1 where the readings disagree about the sign.

    Args:
        a: (values, the same with unparsed verdicts counted as harm), each as in `estimate`.
        b: of the other method; same shape.
        draws: shared by all that is compared.

    Returns:
        The comparison; exactly 0 with p = 1 where a and b are the same.
    """
    least, value, most = (x - y for x, y in ((a[0], b[1]), (a[0], b[0]), (a[1], b[0])))
    low, high, p_bootstrap, p_worlds = _tested(least, draws)
    if (least != most).any():
        _, high, *others = _tested(most, draws)
        split = least.mean() < 0 < most.mean()
        p_bootstrap, p_worlds = (1.0 if split else max(p) for p in zip((p_bootstrap, p_worlds), others, strict=True))
    return Comparison(float(value.mean()), low, high, p_bootstrap, p_worlds)


def _tested(values: Array, draws: Resampling) -> tuple[float, float, float, float]:
    """Interval of the mean, and both p-values that it is 0."""
    means = draws.means(values)
    by_world = values.mean(tuple(range(1, values.ndim)))
    return *draws.interval(values, means), _bootstrap_p(means), sign_flip(by_world)


def _bootstrap_p(means: Array) -> float:
    tolerance = 1e-12 * (1 + np.abs(means).max())
    below, above = (means <= tolerance).sum(), (means >= -tolerance).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(means) + 1)))


def sign_flip(differences: Array, resamples: int = 100_000, seed: int = SEED) -> float:
    """The two-sided permutation test that paired differences, one per world, are symmetric about 0.

    If a method's name meant nothing, each world's difference could as well have had the other sign. p is the share of
    patterns of signs whose mean is at least as far from 0 as the one seen: all of them up to 16 worlds, else of
    `resamples` random ones, (k + 1) / (resamples + 1). With W worlds p cannot be below 2 / 2^W: 0.06 for 5, 0.0005
    for 12. One world has no test: p = 1.

    Args:
        differences: [worlds].
        resamples: random patterns, where not all are tried.
        seed: of these.
    """
    number = len(differences)
    if number <= EXACT:
        signs = 1 - 2 * (np.arange(2**number)[:, None] >> np.arange(number) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng([seed, 2]).integers(2, size=(resamples, number))
    seen = abs(differences.sum())
    # Sums in another order differ in the last digits, and a tie counts against significance.
    extreme = int((np.abs(signs @ differences) >= seen - 1e-9 * np.abs(differences).sum()).sum())
    return extreme / len(signs) if number <= EXACT else (extreme + 1) / (len(signs) + 1)
