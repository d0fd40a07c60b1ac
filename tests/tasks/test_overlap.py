"""Requests that are trained on are not measured on, for every two uses of them."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.tasks.advbench import advbench_rows
from safebasin.tasks.overlap import MAY_SHARE, ROLES, check_overlap

PAIRS = list(combinations(ROLES, 2))
SHARED = {
    *(("forget", "salora"), ("curvature", "salora"), ("visage", "evaluation")),
    *((other, "relapse") for other in ("forget", "curvature", "salora", "validation")),
}


@pytest.mark.parametrize(("one", "other"), [pair for pair in PAIRS if pair not in SHARED])
def test_an_overlap_is_an_error(one: str, other: str) -> None:
    rows = {role: [f"{role} 1", f"{role} 2"] for role in ROLES}
    check_overlap(rows)
    rows[one] = [*rows[one], "Bake a  cake"]
    rows[other] = ["bake a cake ", *rows[other]]
    with pytest.raises(InputError, match=f"1 requests .* row 2 of {one} is row 0 of {other}"):
        check_overlap(rows)


@pytest.mark.parametrize(("one", "other"), sorted(SHARED))
def test_these_may_share(one: str, other: str) -> None:
    check_overlap({one: ["bake a cake"], other: ["bake a cake"]})


def test_every_pair_is_decided() -> None:
    assert {frozenset(pair) for pair in SHARED} == MAY_SHARE
    assert len(PAIRS) == 28


def test_all_overlaps_come_at_once() -> None:
    same: dict[str, Sequence[str]] = {role: ["bake"] for role in ROLES}
    with pytest.raises(InputError) as refused:
        check_overlap(same)
    assert len(str(refused.value).splitlines()) == len(PAIRS) - len(SHARED)
    with pytest.raises(ValueError, match="unknown roles"):
        check_overlap({"train": []})


def test_the_committed_splits_do_not_overlap(advbench_csv: Path) -> None:
    safety = [row["prompt"] for row in advbench_rows("safety", advbench_csv)]
    parts = {role: [row["prompt"] for row in advbench_rows(role, advbench_csv)] for role in ("visage", "evaluation")}
    check_overlap({"forget": safety[:50], "curvature": safety[50:], "salora": safety, **parts})
