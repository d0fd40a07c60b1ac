"""Which responses go on a sheet, and that their weights give back what was drawn from."""

from collections import Counter

import numpy as np
import pytest
from safebasin.errors import InputError
from safebasin.results.records import Verdict
from safebasin.results.review.sampling import SHARES, Candidate, allocate, draw, strata

BOTH = [frozenset({"harm"}), frozenset({"harm", "refusal", "grade"})]
NO, YES, OPEN = Verdict(harmful=False, refused=True), Verdict(harmful=True, refused=False), Verdict()


def stratum(*verdicts: Verdict, facet: str = "harm") -> str:
    """Of one candidate among others that the judges agree on."""
    others = [Candidate("harm", (YES, YES)), Candidate("harm", (NO, NO))]
    return strata([Candidate(facet, verdicts), *others], BOTH)[0]


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ((YES, NO), "disagreement"),
        ((NO, OPEN), "near-threshold"),
        ((OPEN, OPEN), "near-threshold"),
        ((Verdict(harmful=False, score=0.4), NO), "near-threshold"),
        ((YES, Verdict(harmful=True, grade=0.55)), "near-threshold"),
        ((Verdict(harmful=True, score=0.9), YES), "random-flagged"),
        ((Verdict(harmful=False, score=0.1), NO), "random-other"),
        ((Verdict(harmful=True, refused=True), YES), "random-flagged"),
    ],
)
def test_the_stratum_of_a_response(verdicts: tuple[Verdict, ...], found: str) -> None:
    assert stratum(*verdicts) == found


def test_refusals_are_looked_at_where_the_task_counts_them() -> None:
    one, other = Verdict(harmful=False), Verdict(harmful=True, refused=True)
    assert stratum(one, other, facet="refusal") == "random-flagged", "one judge alone decides refusal"
    assert stratum(one, Verdict(harmful=False, refused=True, partial=True), facet="refusal") == "near-threshold"
    assert stratum(one, Verdict(harmful=False, refused=False), facet="refusal") == "random-other"


def test_the_threshold_is_where_the_judge_turns() -> None:
    low = [
        Candidate("harm", (Verdict(harmful=grade >= 0.2, grade=grade),)) for grade in (0.0, 0.15, 0.25, 0.3, 0.5, 1.0)
    ]
    found = strata(low, [frozenset({"harm", "grade"})])
    assert found == ["random-other", *["near-threshold"] * 3, "random-flagged", "random-flagged"]
    by_words = [Candidate("harm", (Verdict(harmful=score < 0.5, score=score),)) for score in (0.05, 0.45, 0.95)]
    assert strata(by_words, [frozenset({"harm"})])[1] == "near-threshold", "the words decide, so the score says little"


@pytest.mark.parametrize(
    ("sizes", "size", "given"),
    [
        ((100, 100, 100, 100), 60, (20, 20, 10, 10)),
        ((5, 0, 3, 1000), 60, (5, 0, 3, 52)),
        ((1, 1, 1, 1), 60, (1, 1, 1, 1)),
        ((9, 9, 9, 9), 8, (2, 2, 2, 2)),
    ],
)
def test_a_sheet_is_shared_out(sizes: tuple[int, ...], size: int, given: tuple[int, ...]) -> None:
    found = allocate(dict(zip(SHARES, sizes, strict=True)), size)
    assert found == {name: n for name, n in zip(SHARES, given, strict=True) if n}


def test_too_small_a_sheet_and_nothing_to_draw_are_told() -> None:
    with pytest.raises(InputError, match=r"sheet of 7 is too small: with 4 kinds of responses it takes 8\."):
        allocate(dict.fromkeys(SHARES, 9), 7)
    with pytest.raises(InputError, match="no responses to label"):
        allocate({}, 7)


def test_a_draw_is_repeatable_without_doubles_and_in_no_order_of_strata() -> None:
    found = [name for name in SHARES for _ in range(50)]
    drawn = draw(found, 60, 1)
    assert drawn == draw(found, 60, 1) != draw(found, 60, 2)
    assert len({*drawn}) == 60
    assert Counter(found[number] for number in drawn) == allocate(dict.fromkeys(SHARES, 50), 60)
    assert len({found[number] for number in drawn[:10]}) > 2


def test_weighted_labels_estimate_the_whole() -> None:
    """Horvitz and Thompson's total is unbiased over draws; the plain share of a sheet is not."""
    random = np.random.default_rng(0)
    found = [*["disagreement"] * 20, *["near-threshold"] * 30, *["random-flagged"] * 10, *["random-other"] * 340]
    chance = {"disagreement": 0.5, "near-threshold": 0.4, "random-flagged": 0.9, "random-other": 0.02}
    harmful = np.array([random.random() < chance[name] for name in found])
    given = allocate(dict(Counter(found)), 60)
    weight = np.array([found.count(name) / given[name] for name in found])
    draws = [draw(found, 60, seed) for seed in range(400)]
    totals = [float((weight * harmful)[drawn].sum()) for drawn in draws]
    error = float(np.std(totals)) / 20
    assert float(np.mean(totals)) == pytest.approx(harmful.sum(), abs=3 * error)
    assert all(weight[drawn].sum() == pytest.approx(len(found)) for drawn in draws), "Hajek's ratio is the same here"
    plain = float(np.mean([harmful[drawn].mean() for drawn in draws]))
    assert plain > 2 * harmful.mean()
