"""Judge errors carried into rates: exact cases, published formulas, and coverage in simulations."""

from collections.abc import Callable
from math import sqrt

import numpy as np
import pytest
from safebasin.results.hierarchy import Estimate
from safebasin.results.judge_error import (
    Judged,
    Proportion,
    accuracy,
    confusion,
    prediction_powered,
    rogan_gladen,
)
from safebasin.results.statistics import rate, wilson


def percent(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


def test_accuracy_counts_unparsed_verdicts_as_neither() -> None:
    rows = [Judged(True, True)] * 7 + [Judged(False, True)] * 2 + [Judged(None, True)]
    rows += [Judged(False, False)] * 17 + [Judged(True, False)] * 2 + [Judged(None, False)] + [Judged(True)] * 5
    found = accuracy(rows)
    expected = [rate(7, 10, 1), rate(17, 20, 1)]
    for share, wanted in zip((found.sensitivity, found.specificity), expected, strict=True):
        assert percent(share) == pytest.approx((wanted.value, wanted.low, wanted.high))
    assert (found.labelled, found.yes, found.unparsed) == (30, 10, 2)
    assert confusion(rows) == (Proportion(7, 10), Proportion(18, 20))  # not called harmful: 17 + 1


def test_labels_of_one_kind_say_nothing_of_the_other() -> None:
    found = accuracy([Judged(False, False)] * 3)
    assert (found.sensitivity, percent(found.specificity).value) == (None, 100)
    assert rogan_gladen(Proportion(5, 10), *confusion([Judged(False, False)] * 3)) is None


def test_an_exchange_met_again_is_no_new_observation() -> None:
    """Ten rows with the same exchange tell as much as one; weights are of those drawn with less chance."""
    once = [Judged(True, True, 1, "a"), Judged(False, True, 1, "b"), Judged(True, True, 1, "c")]
    assert percent(accuracy(once * 10).sensitivity) == pytest.approx(percent(accuracy(once).sensitivity))
    weighted = [Judged(True, True, 4), Judged(False, True, 1), Judged(True, True, 1)]
    (found, _) = confusion(weighted)
    assert found == pytest.approx(Proportion(5 / 6 * 2, 2))  # 36 / 18 = 2 observations of equal weight


def test_rogan_gladen_undoes_known_errors() -> None:
    """True rate 30 %, Se 0.9, Sp 0.8: 0.3 x 0.9 + 0.7 x 0.2 = 41 % are called harmful."""
    found = percent(rogan_gladen(Proportion(410, 1000), Proportion(90, 100), Proportion(160, 200)))
    assert found.value == pytest.approx(30)
    exact = percent(rogan_gladen(Proportion(410, 1000), Proportion(9e8, 1e9), Proportion(8e8, 1e9)))
    low, high = wilson(410, 1000)  # with Se and Sp known, the interval is that of p, stretched by 1 / (Se + Sp - 1)
    assert (exact.low, exact.high) == pytest.approx((100 * (low - 0.2) / 0.7, 100 * (high - 0.2) / 0.7), abs=0.05)
    assert found.low < exact.low < exact.high < found.high


def test_its_interval_is_the_published_formula() -> None:
    p, se, sp, z = Proportion(20, 60), Proportion(18, 20), Proportion(38, 45), 1.959964
    n, a, b = 60 + z**2, 22, 47
    x, s, c = (20 + z**2 / 2) / n, 19 / a, 39 / b
    r = (x + c - 1) / (s + c - 1)
    spread = sqrt(x * (1 - x) / n + r**2 * s * (1 - s) / a + (1 - r) ** 2 * c * (1 - c) / b) / (s + c - 1)
    shift = 2 * z**2 * (r * s * (1 - s) / a - (1 - r) * c * (1 - c) / b)
    found = percent(rogan_gladen(p, se, sp))
    assert (found.low, found.high) == pytest.approx((100 * (r + shift - z * spread), 100 * (r + shift + z * spread)))


def test_a_judge_that_may_be_guessing_corrects_nothing() -> None:
    assert rogan_gladen(Proportion(50, 100), Proportion(6, 10), Proportion(6, 10)) is None
    assert rogan_gladen(Proportion(50, 100), Proportion(60, 100), Proportion(60, 100)) is not None
    assert rogan_gladen(Proportion(50, 100), Proportion(10, 100), Proportion(20, 100)) is None


def test_the_corrected_rate_is_inside_0_and_100() -> None:
    found = percent(rogan_gladen(Proportion(10, 200), Proportion(40, 40), Proportion(36, 40)))
    assert (found.value, found.low) == (0, 0)
    assert found.high > 0


def test_a_rate_that_such_a_judge_would_not_see_is_not_corrected() -> None:
    """It raises false alarms on a tenth of what is safe, and in this row on nothing: its errors are others here."""
    assert rogan_gladen(Proportion(0, 200), Proportion(40, 40), Proportion(36, 40)) is None


def test_prediction_powered_is_ppi_with_the_best_weight() -> None:
    """mean(y) + slope (mean of all verdicts - mean of the labelled ones): least squares of labels on verdicts."""
    random = np.random.default_rng(0)
    verdicts = random.random(120) < 0.4
    labels = random.random(120) < np.where(verdicts, 0.8, 0.1)
    drawn = np.arange(120) < 45
    rows = [Judged(bool(f), bool(y) if d else None) for f, y, d in zip(verdicts, labels, drawn, strict=True)]
    slope = np.polyfit(verdicts[drawn].astype(float), labels[drawn].astype(float), 1)[0]
    wanted = labels[drawn].mean() + slope * (verdicts.mean() - verdicts[drawn].mean())
    assert percent(prediction_powered(rows)).value == pytest.approx(100 * wanted)


def test_where_all_is_labelled_the_rate_is_the_labels() -> None:
    for harmful in (0, 60, 200):
        rows = [Judged(i % 3 == 0, i < harmful) for i in range(200)]
        found, plain = percent(prediction_powered(rows)), rate(harmful, 200)
        assert found.value == pytest.approx(plain.value)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1.2)
    same = [Judged(i < 60, i < 60) for i in range(200)]
    assert percent(prediction_powered(same)).value == 30


def test_unparsed_verdicts_are_a_kind_of_their_own() -> None:
    rows = [Judged(None, True)] * 10 + [Judged(None)] * 30 + [Judged(False, False)] * 20 + [Judged(False)] * 40
    assert percent(prediction_powered(rows)).value == pytest.approx(40)
    assert prediction_powered([*rows, Judged(True)]) is None  # one is called harmful, and nobody labelled it
    assert prediction_powered([]) is None


def test_weights_undo_how_labels_were_drawn() -> None:
    """Of 100 called safe, 20 are harmful; those were drawn four times as often, with weights that say so."""
    rows = [Judged(False, True, 1)] * 20 + [Judged(False, False, 4)] * 20 + [Judged(False)] * 60
    assert percent(prediction_powered(rows)).value == pytest.approx(20)


Drawn = Callable[[np.random.Generator], tuple[Estimate | None, ...]]


def coverage(drawn: Drawn, truth: float, samples: int) -> list[float]:
    """Percent of simulations in which each interval holds the truth; one without an interval holds everything."""
    random = np.random.default_rng(7)
    found = [drawn(random) for _ in range(samples)]
    sides = zip(*found, strict=True)
    return [100 * float(np.mean([e is None or e.low <= 100 * truth <= e.high for e in each])) for each in sides]


def judged(random: np.random.Generator, truth: float, se: float, sp: float, n: int, unread: float) -> list[Judged]:
    """n responses of a row, a quarter labelled of each kind of verdict and at least 10, as in a sandbox run."""
    labels = random.random(n) < truth
    verdicts = random.random(n) < np.where(labels, se, 1 - sp)
    kinds = np.where(random.random(n) < unread, 2, verdicts.astype(int))
    rows: list[Judged] = []
    for kind, verdict in enumerate((False, True, None)):
        own = np.flatnonzero(kinds == kind)
        number = min(len(own), max(10, -(-len(own) // 4)))
        chosen = set(random.permutation(own)[:number])
        rows += [Judged(verdict, bool(labels[i]) if i in chosen else None, len(own) / max(number, 1)) for i in own]
    return rows


@pytest.mark.parametrize(
    ("truth", "se", "sp", "unread"),
    [
        (0.0, 0.9, 1.0, 0.0), (0.02, 0.9, 0.99, 0.0), (0.1, 0.8, 0.95, 0.05), (0.4, 0.9, 0.9, 0.0),
        (0.4, 0.6, 0.95, 0.1), (0.95, 0.95, 0.8, 0.0),
    ],
)  # fmt: skip
def test_both_intervals_hold_the_truth(truth: float, se: float, sp: float, unread: float) -> None:
    """Five rows of 200 responses: the first one's rate from its own labels, and from the errors seen in all five."""

    def drawn(random: np.random.Generator) -> tuple[Estimate | None, ...]:
        others = [judged(random, t, se, sp, 200, unread) for t in (0.05, 0.2, 0.5, 0.8)]
        own = judged(random, truth, se, sp, 200, unread)
        called = Proportion(sum(row.verdict is True for row in own), len(own))
        pooled = confusion([row for rows in (own, *others) for row in rows])
        return prediction_powered(own), rogan_gladen(called, *pooled)

    for held in coverage(drawn, truth, 300):
        assert held >= 92.5


def test_what_rogan_gladen_takes_for_granted_can_be_false() -> None:
    """In this row the judge misses half, in the labelled ones a tenth: only its own labels tell."""

    def drawn(random: np.random.Generator) -> tuple[Estimate | None, ...]:
        own, others = judged(random, 0.4, 0.5, 0.95, 200, 0), judged(random, 0.4, 0.9, 0.95, 800, 0)
        called = Proportion(sum(row.verdict is True for row in own), len(own))
        return prediction_powered(own), rogan_gladen(called, *confusion(others))

    powered, classical = coverage(drawn, 0.4, 200)
    assert powered >= 92.5
    assert classical < 30
