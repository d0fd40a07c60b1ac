"""Correlations and their intervals against scipy, and controls that tell a relation from chance and from length."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from safebasin.restore.geometry.correlation import BLOCK, length_matched, partial, pearson, shuffled, spearman
from safebasin.restore.geometry.tables import correlations, means

N = 60
DRAW = np.random.default_rng(0)
LENGTH = DRAW.integers(5, 40, N).astype(float)
X = DRAW.normal(size=N) + LENGTH / 10
Y = X + DRAW.normal(size=N)


def test_pearson_is_scipys_with_its_interval() -> None:
    found, known = pearson(X, Y), scipy.stats.pearsonr(X, Y)
    low, high = known.confidence_interval(0.95)
    assert found == pytest.approx((known.statistic, low, high))


def test_spearman_is_scipys_also_with_ties_and_its_interval_is_wider() -> None:
    x, y = np.round(X), np.round(Y)
    found, known = spearman(x, y), scipy.stats.spearmanr(x, y)
    assert found.r == pytest.approx(known.statistic)
    spread = (math.atanh(found.high) - math.atanh(found.low)) / 2
    assert spread == pytest.approx(1.959964 * math.sqrt((1 + found.r**2 / 2) / (N - 3)))


def test_partial_is_pearson_of_what_scipys_regressions_leave() -> None:
    def left(values: np.ndarray) -> np.ndarray:
        fit = scipy.stats.linregress(LENGTH, values)
        return values - fit.intercept - fit.slope * LENGTH

    found = partial(X, Y, LENGTH)
    assert found.r == pytest.approx(scipy.stats.pearsonr(left(X), left(Y)).statistic)
    r = [scipy.stats.pearsonr(a, b).statistic for a, b in ((X, Y), (X, LENGTH), (Y, LENGTH))]
    assert found.r == pytest.approx((r[0] - r[1] * r[2]) / math.sqrt((1 - r[1] ** 2) * (1 - r[2] ** 2)))
    assert math.atanh(found.high) - math.atanh(found.r) == pytest.approx(1.959964 / math.sqrt(N - 4))


def test_a_length_that_is_the_same_everywhere_takes_nothing_away() -> None:
    assert partial(X, Y, np.full(N, 9.0)).r == pytest.approx(pearson(X, Y).r)


def test_of_losses_that_follow_length_nothing_is_left() -> None:
    assert pearson(2 * LENGTH, 3 * LENGTH).r == pytest.approx(1)
    assert math.isnan(partial(2 * LENGTH, 3 * LENGTH, LENGTH).r)


@pytest.mark.parametrize(("x", "y"), [(X[:4], Y[:4]), (np.ones(N), Y), (X, np.ones(N))])
def test_too_few_rows_and_equal_losses_have_no_correlation(x: np.ndarray, y: np.ndarray) -> None:
    length = LENGTH[: len(x)]
    found = [pearson(x, y), spearman(x, y), partial(x, y, length), shuffled(x, y), length_matched(x, y, length)]
    assert all(math.isnan(value) for each in found for value in each)


def test_shuffled_pairs_have_no_relation() -> None:
    found = shuffled(X, X)
    assert abs(found.r) < 0.05
    assert found.high == pytest.approx(1.96 / math.sqrt(N - 1), rel=0.3)


def test_length_matched_pairs_keep_what_length_gives_and_nothing_else() -> None:
    by_length = length_matched(LENGTH + 0.1 * X, LENGTH + 0.1 * Y, LENGTH)
    assert by_length.low > 0.9
    own = DRAW.normal(size=N)
    assert pearson(own, own).r == 1
    assert abs(length_matched(own, own, LENGTH).r) < 0.15


def test_length_matched_pairs_no_row_with_itself() -> None:
    alone = np.zeros(N)
    alone[7] = 1.0  # r is -1/(n-1) wherever the one row is paired with another, 1 where with itself
    found = length_matched(alone, alone, LENGTH)
    assert (found.low, found.high) == pytest.approx((-1 / (N - 1), -1 / (N - 1)))
    assert BLOCK > 1


def table() -> pd.DataFrame:
    rows = []
    for model, losses in (("base", X), ("tuned", Y)):
        for row, loss in enumerate(losses):
            if model == "tuned" and row == 3:
                continue
            about = {"set": "harmful", "target": "prompt", "row": row, "tokens": int(LENGTH[row])}
            rows.append({**about, "model": model, "loss": loss})
    return pd.DataFrame(rows)


def test_the_table_pairs_rows_that_both_models_have() -> None:
    found = correlations(table())
    (row,) = found.to_dict("records")
    keep = np.arange(N) != 3
    assert (row["set"], row["target"], row["model"], row["n"]) == ("harmful", "prompt", "tuned", N - 1)
    assert row["pearson"] == pytest.approx(scipy.stats.pearsonr(X[keep], Y[keep]).statistic)
    sums = scipy.stats.pearsonr((X * LENGTH)[keep], (Y * LENGTH)[keep]).statistic
    assert row["sums"] == pytest.approx(sums)
    assert row["partial_low"] < row["partial"] < row["partial_high"]
    assert abs(row["shuffled"]) < 0.05
    assert found.equals(correlations(table()))


def test_means_have_students_interval() -> None:
    base, _ = means(table()).to_dict("records")
    known = scipy.stats.ttest_1samp(X, 0).confidence_interval(0.95)
    assert (base["mean"], base["low"], base["high"]) == pytest.approx((X.mean(), known.low, known.high))
    assert (base["n"], base["tokens"]) == (N, LENGTH.mean())
