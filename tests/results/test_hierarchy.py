"""The hierarchical bootstrap against closed forms, and its coverage where the truth is known."""

from itertools import product

import numpy as np
import pytest
from safebasin.results.hierarchy import Resampling, compare, estimate, sign_flip
from scipy.stats import binomtest, norm, permutation_test, t


def outcomes(*rates: float, prompts: int = 100, finetunings: int = 1) -> np.ndarray:
    """[worlds, fine-tunings, prompts] with the given percentages of 100s, at the same prompts throughout."""
    one = np.array([100.0 * (np.arange(prompts) < rate / 100 * prompts) for rate in rates])
    return np.repeat(one[:, None], finetunings, axis=1)


def test_one_world_and_fine_tuning_is_the_ordinary_bootstrap_of_a_rate() -> None:
    draws = Resampling(1, 1)
    found = draws.means(outcomes(30.0, prompts=200))
    assert found.mean() == pytest.approx(30, abs=0.1)
    assert found.std() == pytest.approx(100 * np.sqrt(0.3 * 0.7 / 200), rel=0.03)
    value, low, high = estimate(outcomes(30.0, prompts=200), draws)
    assert value == 30
    assert (low, high) == tuple(np.quantile(found, [0.025, 0.975]))  # prompts are many: nothing to widen


@pytest.mark.parametrize("prompts", [2_001, 3_333, 40_000])
def test_very_many_prompts_are_drawn_in_bundles_with_the_same_variance(prompts: int) -> None:
    values = 100.0 * (np.random.default_rng(0).random((1, 1, prompts)) < 0.3)
    draws, rate = Resampling(1, 1), values.mean()
    found = draws.means(values)
    assert found.mean() == pytest.approx(rate, abs=0.1)
    assert found.std() == pytest.approx(np.sqrt(rate * (100 - rate) / prompts), rel=0.1)
    assert {*draws._prompts} == {1_000}
    other = 100.0 - values
    assert np.allclose(draws.means(other - values), draws.means(other) - found)  # what is compared is drawn alike


def test_the_variance_between_worlds_dominates() -> None:
    rates = [10.0, 20.0, 50.0, 60.0, 80.0, 90.0]
    found = Resampling(6, 2).means(outcomes(*rates, prompts=1000, finetunings=2))
    assert found.std() == pytest.approx(np.std(rates) / np.sqrt(6), rel=0.05)


def test_fine_tunings_are_drawn_within_their_world() -> None:
    values = np.array([[0.0, 10.0], [50.0, 60.0], [90.0, 100.0]])
    between, within = np.var([5.0, 55.0, 95.0]) / 3, 25.0 / 6
    assert Resampling(3, 2).means(values).var() == pytest.approx(between + within, rel=0.05)


def test_a_prompt_drawn_brings_its_responses_everywhere() -> None:
    same_in_all = outcomes(30.0, 30.0, 30.0, finetunings=2)
    alone = Resampling(1, 1).means(outcomes(30.0))
    assert np.allclose(Resampling(3, 2).means(same_in_all), alone)  # six times the same answers are no six answers


def test_intervals_are_widened_for_few_worlds() -> None:
    values = np.random.default_rng(0).normal(50, 5, size=(8, 1))
    draws = Resampling(8, 1)
    tail = norm.cdf(np.sqrt(8 / 7) * t.ppf(0.025, 7))
    assert draws.interval(values) == tuple(np.quantile(draws.means(values), [tail, 1 - tail]))
    assert tail < 0.01


def test_they_are_not_where_worlds_do_not_differ() -> None:
    draws, values = Resampling(3, 1), outcomes(30, 30, 30, prompts=200)
    assert draws.interval(values) == pytest.approx(np.quantile(draws.means(values), [0.025, 0.975]), abs=1)


def test_responses_that_are_all_alike_do_not_make_a_rate_certain() -> None:
    interval = binomtest(0, 200).proportion_ci(method="wilson")
    found = estimate(outcomes(0, 0, 0, prompts=200), Resampling(3, 1))
    assert found == pytest.approx((0.0, 0.0, 100 * interval.high))


def test_unparsed_verdicts_widen_the_high_end_only() -> None:
    draws = Resampling(3, 1)
    values, most = outcomes(10, 20, 30), outcomes(20, 30, 40)
    found, plain = estimate(values, draws, most), estimate(values, draws)
    assert found[:2] == plain[:2]
    assert found.high == estimate(most, draws).high > plain.high


@pytest.mark.parametrize("shape", [(1, 1, 50), (4, 2, 50), (4, 2)])
def test_a_method_does_not_differ_from_itself(shape: tuple[int, ...]) -> None:
    values = 100.0 * np.random.default_rng(0).integers(2, size=shape)
    assert compare((values, values), (values, values), Resampling(*shape[:2])) == (0, 0, 0, 1, 1)


def test_a_difference_is_paired_by_world_and_prompt() -> None:
    a, b = outcomes(10, 40, 80, 90), outcomes(20, 50, 90, 100)
    found = compare((a, a), (b, b), Resampling(4, 1))
    assert found.value == -10
    assert found.high - found.low < 20  # the rates themselves spread over 80 points
    assert found.p_worlds == 2 / 2**4
    assert found.p_bootstrap < 0.001


def test_where_unparsed_verdicts_decide_the_sign_there_is_no_difference() -> None:
    a, b = outcomes(*[10] * 8), outcomes(*[20] * 8)
    assert compare((a, outcomes(*[40] * 8)), (b, b), Resampling(8, 1))[3:] == (1, 1)
    assert compare((a, outcomes(*[11] * 8)), (b, b), Resampling(8, 1)).p_worlds == 2 / 2**8


@pytest.mark.parametrize("differences", [[3.0, 1.0, 2.0, -0.5, 4.0], [1.0] * 12, [0.0, 0.0, 1.0], [2.0]])
def test_the_sign_flip_test_is_scipys_exact_permutation_test(differences: list[float]) -> None:
    each = np.array(differences)
    expected = sum(abs(sum(s * d for s, d in zip(signs, each, strict=True))) >= abs(each.sum()) - 1e-9
                   for signs in product((1, -1), repeat=len(each))) / 2 ** len(each)  # fmt: skip
    assert sign_flip(each) == pytest.approx(expected)
    if len(each) > 1:
        found = permutation_test((each, 0 * each), lambda x, y: (x - y).mean(), permutation_type="samples")
        assert sign_flip(each) == pytest.approx(found.pvalue)


def test_of_many_worlds_random_signs_are_tried() -> None:
    each = np.random.default_rng(1).normal(0.4, 1, size=30)
    found = permutation_test(
        *((each, 0 * each), lambda x, y: (x - y).mean(-1)),
        permutation_type="samples", n_resamples=20_000, vectorized=False, random_state=1,
    )  # fmt: skip
    assert sign_flip(each) == pytest.approx(found.pvalue, abs=0.01)


def test_the_same_seed_gives_the_same_draws() -> None:
    values = outcomes(10, 30, 70, finetunings=2)
    assert estimate(values, Resampling(3, 2)) == estimate(values, Resampling(3, 2))
    assert estimate(values, Resampling(3, 2)) != estimate(values, Resampling(3, 2, seed=1))


def test_intervals_cover_the_truth_and_p_values_hold_their_level() -> None:
    """Rates of 8 worlds around 40 %, fine-tunings around their world's, 50 prompts with difficulties in common."""
    random, trials = np.random.default_rng(0), 300
    covered, rejected = 0, 0
    for trial in range(trials):
        world = random.normal(0, 12, size=(2, 8, 1, 1))  # of two methods that do not differ in the mean
        tuning = random.normal(0, 8, size=(2, 8, 2, 1))
        hard = random.normal(0, 10, size=50)
        values = 100.0 * (100 * random.random((2, 8, 2, 50)) < 40 + world + tuning + hard)
        draws = Resampling(8, 2, resamples=600, seed=trial)
        found = estimate(values[0], draws)
        covered += found.low <= 40 <= found.high
        rejected += compare((values[0],) * 2, (values[1],) * 2, draws).p_worlds <= 0.05
    assert 0.93 * trials <= covered <= 0.995 * trials
    assert rejected <= 0.075 * trials
