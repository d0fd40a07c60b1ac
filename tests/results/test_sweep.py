"""Sweeps as tables: shares and perplexity per point, scores per rule, the leaderboard's columns, files."""

from collections.abc import Callable
from math import exp
from pathlib import Path

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult, SweepSample
from safebasin.results.records import Outcome
from safebasin.results.sweep import points, score_table, scores, write_visage

ALPHAS = (-0.5, -0.25, 0.0, 0.25, 0.5)
LETTERS = {outcome.value[0].upper(): outcome for outcome in Outcome}
Make = Callable[..., MethodResult]


def sweep(*directions: str) -> list[SweepSample]:
    """Responses to 4 prompts: "RRRH/..." gives those at one point, points apart by a slash; only R has a keyword."""
    return [
        SweepSample(prompt, direction, alpha, LETTERS[letter], letter != "R", -2.0, 0 if letter == "I" else 4)
        for direction, text in enumerate(directions)
        for alpha, letters in zip(ALPHAS, text.split("/"), strict=True)
        for prompt, letter in enumerate(letters)
    ]


BASIN = ("IIII/RRHB/RRRR/RRRH/HHHH", "HHHH/RRII/RRRR/IIII/IIII")


@pytest.fixture
def result(make: Make) -> MethodResult:
    return make("lora", "fine-tuning", hrr="HR", sweep=sweep(*BASIN))


def test_points(result: MethodResult) -> None:
    frame = points([result])
    assert len(frame) == 10
    row = frame[(frame["direction"] == 0) & (frame["alpha"] == -0.25)].iloc[0]
    assert (row["n"], row["keyword_asr"], row["harmful"], row["refused"], row["benign"]) == (4, 50, 25, 50, 25)
    assert row["perplexity"] == pytest.approx(exp(8 / 16))
    broken = frame[(frame["direction"] == 0) & (frame["alpha"] == -0.5)].iloc[0]
    assert (broken["incoherent"], broken["keyword_asr"], broken["harmful"]) == (100, 100, 0)
    assert pd.isna(broken["perplexity"])


def test_scores_of_each_rule(result: MethodResult) -> None:
    found = scores(result)
    # N = 5: the search for an edge is at i = 1 on the left and i = 3 on the right
    assert found["keywords", "official"].value == pytest.approx(((50 + 100 + 75) / 3 + (50 + 100 + 0 + 0) / 4) / 2)
    assert found["keywords", "mean"].value == pytest.approx((225 / 5 + 150 / 5) / 2)
    assert found["judge", "mean"].value == pytest.approx(((100 + 75 + 100 + 75 + 0) + (0 + 100 * 4)) / 10)
    assert found["refusal", "mean"].value == found["keywords", "mean"].value
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in found.values())


def test_unparsed_verdicts_widen_the_judges_interval_downwards(make: Make) -> None:
    parsed = scores(make("lora", "fine-tuning", sweep=sweep("RRRR/RRRR/RRRR/RRRR/HHHH")))
    unparsed = scores(make("lora", "fine-tuning", sweep=sweep("RRRU/RRRU/RRRU/RRRU/HHHH")))
    assert unparsed["judge", "mean"].value == parsed["judge", "mean"].value
    assert unparsed["judge", "mean"].low < parsed["judge", "mean"].low
    assert unparsed["judge", "mean"].high == parsed["judge", "mean"].high


def test_the_leaderboards_columns(result: MethodResult, make: Make) -> None:
    frame = leaderboard([make("base", "base", hrr="RR"), result]).set_index("method")
    found, row = scores(result), frame.loc["lora"]
    assert tuple(row[["visage", "visage_low", "visage_high"]]) == found["keywords", "official"]
    assert row["visage_mean"] == found["keywords", "mean"].value
    assert row["visage_judged"] == found["judge", "official"].value
    assert frame.loc["base"].filter(like="visage").isna().all()


def test_a_sweep_with_holes_is_no_sweep(make: Make) -> None:
    with pytest.raises(InputError, match="1 of 40 responses of the VISAGE sweep are missing"):
        scores(make("lora", "fine-tuning", sweep=sweep(*BASIN)[:-1]))


def test_files(result: MethodResult, make: Make, tmp_path: Path) -> None:
    assert write_visage([make("base", "base", hrr="RR")], tmp_path) == []
    results = [result, make("base", "base", sweep=sweep(*["RRRR/RRRR/RRRR/RRRR/RRRR"] * 2))]
    written = write_visage(results, tmp_path)
    assert [path.name for path in written] == ["visage.csv", "visage-scores.csv", "visage.svg"]
    assert len(pd.read_csv(written[0])) == 20
    assert len(pd.read_csv(written[1])) == 2 * 3 * 3 == len(score_table(results))
    chart = written[2].read_text()
    assert all(words in chart for words in ("lora", "base", "no refusal keyword", "incoherent"))
    write_visage(results, tmp_path)
    assert written[2].read_text() == chart
