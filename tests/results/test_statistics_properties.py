"""What holds of every rate, interval and test, whatever the verdicts are."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safebasin.results.agreement import agree, cohen_kappa
from safebasin.results.hierarchy import sign_flip
from safebasin.results.judge_error import Judged, Proportion, prediction_powered, rogan_gladen
from safebasin.results.statistics import holm, mcnemar_exact, paired_difference, rate
from scipy import stats

COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
"""k of n."""
VERDICT = st.sampled_from([True, False, None])
PAIRS = st.lists(st.tuples(VERDICT, VERDICT), min_size=1, max_size=40)
P = st.floats(0, 1)
PROPORTION = COUNTS.map(lambda counts: Proportion(*counts))
GOOD = st.integers(20, 500).flatmap(lambda n: st.builds(Proportion, st.integers(3 * n // 4, n), st.just(n)))
"""Of a judge that is right more often than not."""


def sides(pairs: list[tuple[bool | None, bool | None]]) -> tuple[list[bool | None], list[bool | None]]:
    return [a for a, _ in pairs], [b for _, b in pairs]


@given(COUNTS, st.floats(0.01, 0.99))
def test_the_interval_is_that_of_scipy(counts: tuple[int, int], confidence: float) -> None:
    k, n = counts
    found, theirs = rate(k, n, confidence=confidence), stats.binomtest(k, n).proportion_ci(confidence, "wilson")
    assert (found.low, found.high) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)


@given(COUNTS, st.data())
def test_a_rate_lies_in_its_interval_and_is_mirrored_by_its_opposite(
    counts: tuple[int, int], data: st.DataObject
) -> None:
    k, n = counts
    unparsed = data.draw(st.integers(0, n - k))
    found, other = rate(k, n, unparsed), rate(n - k - unparsed, n, unparsed)
    assert 0 <= found.low <= found.value <= 100 * (k + unparsed) / n + 1e-9 <= found.high + 2e-9 <= 100 + 2e-9
    assert (found.low, found.high) == pytest.approx((100 - other.high, 100 - other.low))
    assert found.low >= rate(k, n).low - 1e-9
    assert found.high >= rate(k, n).high - 1e-9


@given(PAIRS, st.randoms(use_true_random=False))
def test_paired_tests_do_not_see_the_order_of_prompts_nor_of_methods(pairs: list, random: object) -> None:
    a, b = sides(pairs)
    shuffled = [*pairs]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    p, difference = mcnemar_exact(a, b), paired_difference(a, b)
    assert mcnemar_exact(*sides(shuffled)) == p == mcnemar_exact(b, a)
    assert paired_difference(*sides(shuffled)) == difference
    mirrored = paired_difference(b, a)
    assert (mirrored.value, mirrored.only_a) == (-difference.value, difference.only_b)
    assert (mirrored.low, mirrored.high) == pytest.approx((-difference.high, -difference.low))


@given(PAIRS)
def test_a_paired_difference_lies_in_its_interval_and_is_that_of_the_rates(pairs: list) -> None:
    a, b = sides(pairs)
    found = paired_difference(a, b)
    assert -100 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 100
    assert found.value == pytest.approx(100 * (a.count(True) - b.count(True)) / len(pairs))


@given(PAIRS)
def test_mcnemar_is_the_binomial_test_of_scipy_where_all_is_parsed(pairs: list) -> None:
    a, b = sides([(x is True, y is True) for x, y in pairs])
    only_a = sum(x and not y for x, y in zip(a, b, strict=True))
    only_b = sum(y and not x for x, y in zip(a, b, strict=True))
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(expected)
    assert 0 < mcnemar_exact(*sides(pairs)) <= 1


@given(PAIRS)
def test_a_verdict_that_is_not_known_makes_nothing_more_significant(pairs: list) -> None:
    a, b = sides(pairs)
    for known in (True, False):
        told = [known if x is None else x for x in a], [known if y is None else y for y in b]
        assert mcnemar_exact(a, b) >= mcnemar_exact(*told) - 1e-12
        assert paired_difference(a, b).low <= paired_difference(*told).low + 1e-9
        assert paired_difference(a, b).high >= paired_difference(*told).high - 1e-9


@given(st.lists(st.none() | P, max_size=20), st.data())
def test_holm_is_its_formula_in_any_order(pvalues: list, data: st.DataObject) -> None:
    adjusted = holm(pvalues)
    tested = sorted(p for p in pvalues if p is not None)
    steps = [min(1.0, (len(tested) - i) * p) for i, p in enumerate(tested)]
    for p, found in zip(pvalues, adjusted, strict=True):
        if p is None:
            assert found is None
        else:
            assert found == pytest.approx(max(steps[: tested.index(p) + 1]))
            assert p <= found <= 1
    order = data.draw(st.permutations(range(len(pvalues))))
    assert holm([pvalues[i] for i in order]) == [adjusted[i] for i in order]


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=8))
def test_the_sign_flip_test_is_the_permutation_test_of_scipy(differences: list[int]) -> None:
    values = np.array(differences, dtype=float)
    p = sign_flip(values)
    assert sign_flip(-values) == sign_flip(values[::-1]) == sign_flip(7 * values) == p
    if len(values) > 1:
        theirs = stats.permutation_test(
            (values,),
            lambda x, axis: np.abs(x.sum(axis)),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
        )
        assert p == pytest.approx(theirs.pvalue)


@given(PAIRS, st.data())
def test_agreement_does_not_see_the_order_of_responses_nor_of_judges(pairs: list, data: st.DataObject) -> None:
    prompts = data.draw(st.lists(st.integers(0, 5), min_size=len(pairs), max_size=len(pairs)))
    order = data.draw(st.permutations(range(len(pairs))))
    a, b = sides(pairs)
    found, swapped = agree(a, b, prompts), agree(b, a, prompts)
    moved = agree([a[i] for i in order], [b[i] for i in order], [prompts[i] for i in order])
    for other in (swapped, moved):
        assert (other.n, other.both, other.neither) == (found.n, found.both, found.neither)
        for name in ("agreement", "kappa", "ac1"):
            one, two = getattr(found, name), getattr(other, name)
            assert (one is None) == (two is None)
            assert one is None or [*one] == pytest.approx([*two], nan_ok=True)
    for estimate in filter(None, (found.kappa, found.ac1)):
        assert -1 <= estimate.value <= 1
        assert not estimate.low > estimate.value
        assert not estimate.high < estimate.value


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
def test_kappa_is_its_formula(counts: list[int]) -> None:
    both, only_a, only_b, neither = counts
    n = sum(counts)
    chance = Fraction((both + only_a) * (both + only_b) + (neither + only_b) * (neither + only_a), n * n) if n else 1
    found = cohen_kappa(np.reshape(counts, (2, 2)))
    if chance == 1:
        assert found is None
    else:
        assert found == pytest.approx(float((Fraction(both + neither, n) - chance) / (1 - chance)))


@given(PROPORTION, GOOD, GOOD)
def test_a_corrected_rate_is_a_rate(apparent: Proportion, sensitivity: Proportion, specificity: Proportion) -> None:
    found = rogan_gladen(apparent, sensitivity, specificity)
    assert found is None or 0 <= found.low <= found.value <= found.high <= 100


@given(st.lists(st.tuples(VERDICT, VERDICT), min_size=1, max_size=40), st.data())
def test_a_prediction_powered_rate_is_a_rate_whatever_the_order(pairs: list, data: st.DataObject) -> None:
    rows = [Judged(verdict, label) for verdict, label in pairs]
    found, moved = prediction_powered(rows), prediction_powered(data.draw(st.permutations(rows)))
    kinds = {verdict: [label for own, label in pairs if own is verdict] for verdict, _ in pairs}
    unlabelled = any(set(labels) == {None} for labels in kinds.values())
    assert (found is None) == (moved is None) == unlabelled
    if found is not None and moved is not None:
        assert [*found] == pytest.approx([*moved])
        assert 0 <= found.low <= found.value + 1e-9
        assert found.value - 1e-9 <= found.high <= 100
    if None not in [label for _, label in pairs]:  # then the labels alone decide
        assert found is not None
        assert found.value == pytest.approx(100 * sum(bool(label) for _, label in pairs) / len(pairs))
