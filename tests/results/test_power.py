"""The power of the exact paired test against the sum over every possible outcome."""

from itertools import product
from math import factorial

import pytest
from safebasin.errors import InputError
from safebasin.results.power import discordant, fewest_flips, mcnemar_power, sample_size, smallest_difference
from safebasin.results.statistics import mcnemar_exact


def every_outcome(n: int, only_a: float, only_b: float, alpha: float) -> float:
    """Sums the trinomial over all tables that our own test rejects."""
    total = 0.0
    for x, y in product(range(n + 1), repeat=2):
        if x + y <= n and x + y > 0:
            a = [True] * x + [False] * (n - x)
            b = [False] * x + [True] * y + [False] * (n - x - y)
            ways = factorial(n) // (factorial(x) * factorial(y) * factorial(n - x - y))
            if mcnemar_exact(a, b) <= alpha:
                total += ways * only_a**x * only_b**y * (1 - only_a - only_b) ** (n - x - y)
    return total


@pytest.mark.parametrize("n", [5, 6, 17, 24])
@pytest.mark.parametrize(("only_a", "only_b"), [(0.5, 0.02), (0.3, 0.3), (0.2, 0.0), (0.6, 0.4)])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_power_is_the_sum_over_every_outcome(n: int, only_a: float, only_b: float, alpha: float) -> None:
    assert mcnemar_power(n, only_a, only_b, alpha) == pytest.approx(every_outcome(n, only_a, only_b, alpha), abs=1e-9)


def test_it_holds_its_level_and_needs_a_difference() -> None:
    assert mcnemar_power(200, 0.1, 0.1) < 0.05
    assert mcnemar_power(200, 0.0, 0.0) == 0
    assert mcnemar_power(200, 0.3, 0.1) == mcnemar_power(200, 0.1, 0.3) > mcnemar_power(100, 0.3, 0.1)


@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.25])
def test_the_fewest_flips_are_those_with_which_the_test_can_reject(alpha: float) -> None:
    need = fewest_flips(alpha)
    assert mcnemar_exact([True] * need, [False] * need) <= alpha
    assert mcnemar_exact([True] * (need - 1), [False] * (need - 1)) > alpha


def test_overlap_goes_from_independent_to_nested() -> None:
    assert discordant(0.3, 0.1) == pytest.approx((0.27, 0.07))
    assert discordant(0.3, 0.1, 1.0) == pytest.approx((0.2, 0.0))
    assert sum(discordant(0.3, 0.1, 0.5)) == pytest.approx(0.27)
    with pytest.raises(InputError, match="rate 3 is no share"):
        discordant(3, 0.1)


@pytest.mark.parametrize("rise", [True, False])
@pytest.mark.parametrize("overlap", [0.0, 1.0])
def test_the_smallest_difference_has_just_the_power(rise: bool, overlap: float) -> None:
    found = smallest_difference(200, 0.3, rise, overlap)
    assert found is not None
    for step, enough in ((1e-4, True), (-1e-4, False)):
        other = 0.3 + (found + step) * (1 if rise else -1)
        assert (mcnemar_power(200, *discordant(other, 0.3, overlap)) >= 0.8) is enough


def test_where_nothing_can_be_shown_there_is_no_difference() -> None:
    assert smallest_difference(200, 0.02, rise=False) is None
    assert smallest_difference(5, 0.0, rise=True) is None
    assert smallest_difference(200, 1.0, rise=True) is None


@pytest.mark.parametrize(
    ("a", "b", "overlap"), [(0.03, 0.15, 0.0), (0.03, 0.15, 1.0), (0.5, 0.2, 0.3), (0.0, 0.3, 0.0)]
)
def test_the_sample_size_is_behind_the_last_that_falls_short(a: float, b: float, overlap: float) -> None:
    found = sample_size(a, b, overlap)
    parts = discordant(a, b, overlap)
    assert mcnemar_power(found - 1, *parts) < 0.8
    assert all(mcnemar_power(n, *parts) >= 0.8 for n in range(found, found + found // 20))


def test_equal_rates_have_none() -> None:
    with pytest.raises(InputError, match="tell 3 % from 3 %"):
        sample_size(0.03, 0.03)
