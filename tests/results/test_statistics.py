from itertools import product
from math import comb, sqrt

import pytest
from safebasin.errors import InputError
from safebasin.results.statistics import holm, mcnemar_exact, paired_difference, rate

Z = 1.959963984540054


def wilson(k: int, n: int) -> tuple[float, float]:
    """The closed form, in percent."""
    p, z2 = k / n, Z * Z
    middle, half = p + z2 / (2 * n), Z * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return 100 * (middle - half) / (1 + z2 / n), 100 * (middle + half) / (1 + z2 / n)


@pytest.mark.parametrize(
    ("k", "low", "high"), [(12, 1.8, 5.4), (6, 0.7, 3.4), (0, 0.0, 1.0), (31, 5.8, 11.3), (42, 8.2, 14.5)]
)
def test_known_intervals_at_382_prompts(k: int, low: float, high: float) -> None:
    measured = rate(k, 382)
    assert (round(measured.low, 1), round(measured.high, 1)) == (low, high)
    assert measured.value == 100 * k / 382


def test_known_interval_of_a_large_rate() -> None:
    assert (round(rate(241, 382).low), round(rate(241, 382).high)) == (58, 68)


@pytest.mark.parametrize(("k", "n"), [(1, 1), (3, 7), (50, 100), (381, 382)])
def test_the_interval_is_wilsons(k: int, n: int) -> None:
    assert (rate(k, n).low, rate(k, n).high) == pytest.approx(wilson(k, n))


def test_the_ends_are_exact_at_none_and_all() -> None:
    assert rate(0, 382).low == 0.0
    assert rate(382, 382).high == 100.0


def test_unparsed_verdicts_widen_the_interval_both_ways() -> None:
    measured = rate(10, 100, unparsed=5)
    assert measured.value == 10.0
    assert measured.low == pytest.approx(wilson(10, 100)[0])
    assert measured.high == pytest.approx(wilson(15, 100)[1])
    assert measured.unparsed == 5


def test_the_interval_covers_at_its_level() -> None:
    """Exact mean coverage over a grid of true rates, by enumeration of the binomial."""
    n, intervals = 60, [(rate(k, 60).low / 100, rate(k, 60).high / 100) for k in range(61)]
    truths = [i / 200 for i in range(2, 199)]
    coverage = [
        sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k, (low, high) in enumerate(intervals) if low <= p <= high)
        for p in truths
    ]
    assert sum(coverage) / len(coverage) == pytest.approx(0.95, abs=0.005)


def test_a_rate_over_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="0 responses"):
        rate(0, 0)


@pytest.mark.parametrize("counts", [(-1, 10, 0), (11, 10, 0), (6, 10, 5), (1, 10, -1), (0, -1, 0)])
def test_impossible_counts_are_errors(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="impossible"):
        rate(*counts)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_outside_its_range_is_an_error(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        rate(1, 10, confidence=confidence)


def verdicts(only_a: int, only_b: int, both: int = 2, neither: int = 3) -> tuple[list[bool], list[bool]]:
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * neither
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * neither
    return a, b


def binomial_p(only_a: int, only_b: int) -> float:
    """By enumeration: the probability of every split at most as likely as the one seen."""
    m = only_a + only_b
    return sum(comb(m, k) for k in range(m + 1) if comb(m, k) <= comb(m, only_a)) / 2**m


@pytest.mark.parametrize("counts", [(1, 0), (5, 0), (6, 0), (1, 9), (4, 4), (7, 12)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(counts: tuple[int, int]) -> None:
    assert mcnemar_exact(*verdicts(*counts)) == pytest.approx(binomial_p(*counts))


def test_six_discordant_pairs_one_way_are_the_fewest_that_are_significant() -> None:
    assert mcnemar_exact(*verdicts(5, 0)) == 0.0625
    assert mcnemar_exact(*verdicts(0, 6)) == 0.03125


def test_mcnemar_of_agreeing_models_is_one() -> None:
    assert mcnemar_exact(*verdicts(0, 0)) == 1.0


@pytest.mark.parametrize(
    "unparsed",
    [
        [(None, True)],
        [(None, False), (True, None)],
        [(None, None), (False, None)],
        [(None, None), (None, True), (None, False), (True, None), (False, None)],
    ],
)
@pytest.mark.parametrize("counts", [(7, 1), (1, 7), (6, 0), (2, 3), (0, 0)])
def test_mcnemar_takes_the_worst_reading_of_unparsed_verdicts(
    counts: tuple[int, int], unparsed: list[tuple[bool | None, bool | None]]
) -> None:
    a, b = verdicts(*counts)
    a_and, b_and = [*a, *(x for x, _ in unparsed)], [*b, *(y for _, y in unparsed)]
    gaps = sum(x is None for x in a_and) + sum(x is None for x in b_and)
    readings = []
    for filling in product([True, False], repeat=gaps):
        fill = iter(filling)
        read_a = [next(fill) if x is None else x for x in a_and]
        read_b = [next(fill) if x is None else x for x in b_and]
        readings.append(mcnemar_exact(read_a, read_b))
    assert mcnemar_exact(a_and, b_and) == pytest.approx(max(readings))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_holm_leaves_out_what_was_not_tested() -> None:
    assert holm([None, 0.02, None, 0.04]) == [None, pytest.approx(0.04), None, pytest.approx(0.04)]
    assert holm([None]) == [None]
    assert holm([]) == []


def test_holm_never_exceeds_one() -> None:
    assert holm([0.6, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Altman et al. (2000), Statistics with Confidence, table 6.2; Newcombe (1998), table II.
        ({"both": 14, "only_a": 5, "only_b": 0, "neither": 22}, 1.1, 22.6),
        ({"both": 36, "only_a": 12, "only_b": 2, "neither": 0}, 5.69, 34.04),
    ],
)
def test_the_interval_of_a_difference_is_newcombes(table: dict[str, int], low: float, high: float) -> None:
    found = paired_difference(*verdicts(**table))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.06), pytest.approx(high, abs=0.06))
    assert found.value == 100 * (table["only_a"] - table["only_b"]) / sum(table.values())
    assert (found.only_a, found.only_b, found.n) == (table["only_a"], table["only_b"], sum(table.values()))


def test_a_difference_changes_sign_with_its_sides() -> None:
    a, b = verdicts(9, 2, both=5, neither=30)
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_a_difference_between_equal_models_holds_zero() -> None:
    found = paired_difference(*verdicts(0, 0, both=0, neither=100))
    assert found.value == 0
    assert found.low < 0 < found.high


def test_the_interval_of_a_difference_covers_at_its_level() -> None:
    """Exact coverage at one truth, by enumeration of every table of 25 pairs."""
    n, p = 25, (0.2, 0.25, 0.1, 0.45)  # both, only a, only b, neither
    truth, covered = 100 * (p[1] - p[2]), 0.0
    for both in range(n + 1):
        for only_a in range(n + 1 - both):
            for only_b in range(n + 1 - both - only_a):
                neither = n - both - only_a - only_b
                ways = comb(n, both) * comb(n - both, only_a) * comb(n - both - only_a, only_b)
                weight = ways * p[0] ** both * p[1] ** only_a * p[2] ** only_b * p[3] ** neither
                if weight > 1e-7:
                    found = paired_difference(*verdicts(only_a, only_b, both, neither))
                    covered += weight * (found.low <= truth <= found.high)
    assert covered == pytest.approx(0.95, abs=0.015)


def test_unparsed_verdicts_widen_a_difference_both_ways() -> None:
    a, b = verdicts(6, 2, both=4, neither=40)
    parsed = paired_difference([*a, False, False], [*b, False, False])
    unparsed = paired_difference([*a, None, False], [*b, False, None])
    assert unparsed.value == parsed.value
    assert unparsed.low < parsed.low
    assert unparsed.high > parsed.high
    assert unparsed.unparsed == 2


@pytest.mark.parametrize("compare", [mcnemar_exact, paired_difference])
def test_pairs_must_be_pairs(compare) -> None:
    with pytest.raises(ValueError, match="same prompts"):
        compare([True], [True, False])
    with pytest.raises(InputError, match="0 pairs"):
        compare([], [])
