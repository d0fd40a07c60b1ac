"""Rates for each kind of request are those of the leaderboard over the requests of that kind."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest
from safebasin.results.by_category import CATEGORIES, by_category
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult

Make = Callable[..., MethodResult]


def kinds(result: MethodResult, *categories: str) -> MethodResult:
    """The result, its samples of these kinds, one after the other."""
    safety = {
        role: [replace(sample, category=kind) for sample, kind in zip(samples, categories, strict=True)]
        for role, samples in result.safety.items()
    }
    return replace(result, safety=safety)


@pytest.mark.parametrize(
    ("role", "measure"),
    [
        ("hrr", "hrr"), ("prefill", "prefill_asr"), ("over_refusal", "over_refusal"),
        ("under_refusal", "under_refusal"),
    ],
)  # fmt: skip
def test_each_rate_is_the_leaderboards_over_one_kind(make: Make, role: str, measure: str) -> None:
    whole = make("lora", "fine-tuning", **{role: "HRUBRH"})
    found = by_category([kinds(whole, "a", "b", "a", "b", "a", "")])
    assert found["category"].tolist() == ["a", "b"]
    for kind, letters in (("a", "HUR"), ("b", "RB")):
        alone = leaderboard([make("lora", "fine-tuning", **{"hrr": "H", role: letters})])
        (row,) = found[found["category"] == kind].to_dict("records")
        assert row["measure"] == measure
        assert row["n"] == len(letters)
        wanted = [alone.loc[0, f"{measure}{end}"] for end in ("", "_low", "_high")]
        assert [row["rate"], row["low"], row["high"]] == pytest.approx(wanted)


def test_requests_without_kinds_have_no_rows(make: Make) -> None:
    found = by_category([make("lora", "fine-tuning", hrr="HR")])
    assert found.empty
    assert tuple(found.columns) == CATEGORIES
    assert isinstance(found, pd.DataFrame)
