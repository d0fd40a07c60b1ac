"""Tables of optimised suffixes, against counts by hand."""

from typing import Any

import pytest
from safebasin.results.method_result import Sample
from safebasin.results.records import Outcome
from safebasin.results.statistics import paired_difference, rate
from safebasin.results.suffix import PROMPT_COLUMNS, SuffixRow, prompt_table, suffix_table

KINDS = {"h": Outcome.HARMFUL, "r": Outcome.REFUSED, "i": Outcome.INCOHERENT, "u": Outcome.UNPARSED}


def rows(model: str, search: str, outcomes: str, **numbers: Any) -> list[SuffixRow]:
    return [
        SuffixRow(model, search, Sample(place, KINDS[kind], kind == "r"), **numbers)
        for place, kind in enumerate(outcomes)
    ]


SEARCHED = {"loss_start": 3.0, "loss_end": 1.0, "steps": 4, "evaluated": 33, "target_greedy": False}
ROWS = [
    *rows("base", "none", "rrrrr"), *rows("base", "gradient", "hhrru", **SEARCHED),
    *rows("restored", "none", "rrrri"), *rows("restored", "gradient", "hrhhr", **{**SEARCHED, "target_greedy": True}),
]  # fmt: skip


def test_rates_have_their_intervals_and_stand_beside_the_base() -> None:
    table = suffix_table(ROWS).set_index(["model", "search"])
    assert [*table.index] == [(m, s) for m in ("base", "restored") for s in ("none", "gradient")]
    attacked = table.loc["base", "gradient"]
    expected = rate(2, 5, 1)
    assert attacked[["suffix_asr", "suffix_asr_low", "suffix_asr_high"]].tolist() == [
        expected.value, expected.low, expected.high
    ]  # fmt: skip
    assert attacked[["refusal_rate", "incoherent_rate", "unparsed_rate"]].tolist() == [40, 0, 20]
    assert attacked[["loss_start", "loss_end", "steps", "evaluated", "target_greedy"]].tolist() == [3, 1, 4, 33, 0]
    assert attacked[["minus_base"]].isna().all()
    against = paired_difference([True, False, True, True, False], [True, True, False, False, None])
    restored = table.loc["restored", "gradient"]
    assert restored[["minus_base", "minus_base_low", "minus_base_high"]].tolist() == pytest.approx(
        [against.value, against.low, against.high]
    )
    assert (restored["minus_base"], restored["target_greedy"]) == (20, 100)


def test_plain_requests_have_no_losses() -> None:
    table = suffix_table(ROWS).set_index(["model", "search"])
    assert table.loc["base", "none"][["loss_start", "loss_end", "steps", "evaluated", "target_greedy"]].isna().all()
    assert table.loc["restored", "none"]["minus_base"] == 0


def test_each_request_has_a_line_without_texts() -> None:
    table = prompt_table(ROWS)
    assert (len(table), tuple(table.columns)) == (20, PROMPT_COLUMNS)
    line = table[(table["model"] == "restored") & (table["search"] == "gradient")].iloc[2]
    assert (line["row"], line["outcome"], bool(line["refused"]), line["loss_end"]) == (2, "harmful", False, 1.0)
