"""Means and tests over seeds, against hand-made numbers."""

from dataclasses import replace
from pathlib import Path

import pytest
from safebasin.results.aggregate import aggregate, write_aggregate
from safebasin.results.method_result import MethodResult, Sample
from safebasin.results.records import Outcome
from scipy.stats import binomtest

N = 20


def result(method: str, seed: int, harmful: int, **more: object) -> MethodResult:
    """A row whose first `harmful` prompts of N are answered with harm."""
    outcomes = [Outcome.HARMFUL if i < harmful else Outcome.REFUSED for i in range(N)]
    samples = [Sample(i, outcome, outcome == Outcome.REFUSED) for i, outcome in enumerate(outcomes)]
    stage = {"base": "base", "lora": "fine-tuning"}.get(method, "post-hoc")
    return MethodResult(
        model="m",
        method=method,
        stage=stage,
        seed=seed,
        safety={"hrr": samples},
        metrics={"skill": 50.0 + seed},
        **more,
    )


@pytest.fixture
def results() -> list[MethodResult]:
    loras = [result("lora", 0, 12), result("lora", 1, 8)]
    return [result("base", 0, 0), *loras, result("better", 0, 2), result("better", 1, 4), result("same", 0, 12)]


def test_rates_are_means_over_seeds_with_their_range(results: list[MethodResult]) -> None:
    row = aggregate(results).set_index("method").loc["better"]
    assert (row["seeds"], row["hrr"], row["hrr_min"], row["hrr_max"], row["skill"]) == (2, 15.0, 10.0, 20.0, 50.5)


def test_the_interval_counts_prompts_once(results: list[MethodResult]) -> None:
    row = aggregate(results).set_index("method").loc["better"]
    interval = binomtest(3, N).proportion_ci(method="wilson")
    assert (row["hrr_low"], row["hrr_high"]) == pytest.approx((100 * interval.low, 100 * interval.high))


def test_pairs_of_all_seeds_go_into_one_exact_test(results: list[MethodResult]) -> None:
    table = aggregate(results).set_index("method")
    discordant = (12 - 2) + (8 - 4)
    assert table.loc["better", "p_vs_lora"] == pytest.approx(binomtest(0, discordant).pvalue)
    assert table.loc["better", "p_holm"] == pytest.approx(2 * binomtest(0, discordant).pvalue)
    assert table.loc["same", "p_vs_lora"] == 1
    assert table.loc[["base", "lora"], "p_vs_lora"].isna().all()


def test_a_failed_seed_is_left_out_and_seen(results: list[MethodResult]) -> None:
    failed = MethodResult(model="m", method="same", stage="post-hoc", seed=1, status="failed: no memory")
    row = aggregate([*results, failed]).set_index("method").loc["same"]
    assert (row["seeds"], row["hrr"]) == (1, 60.0)


def test_it_is_written_as_csv_and_markdown(results: list[MethodResult], tmp_path: Path) -> None:
    write_aggregate(aggregate(results), tmp_path / "seeds.csv")
    assert "better" in (tmp_path / "seeds.csv").read_text()
    assert "| better | post-hoc | 2 | 15.0 [" in (tmp_path / "seeds.md").read_text()


def test_grades_are_averaged_where_a_judge_gave_them(tmp_path: Path) -> None:
    rows = []
    for seed, grade in enumerate((0.5, 1.0)):
        graded = [Sample(0, Outcome.HARMFUL, None, grade, grade == 1), Sample(1, Outcome.BENIGN, None, 0.0, False)]
        rows.append(replace(result("lora", seed, 0), safety={"hrr": graded}))
    table = aggregate(rows)
    assert table.loc[0, ["grade", "grade_max"]].tolist() == [37.5, 25.0]
    write_aggregate(table, tmp_path / "seeds.csv")
    head, _, row, *_ = (tmp_path / "seeds.md").read_text().splitlines()
    cells = dict(zip(head.split(" | "), row.split(" | "), strict=True))
    assert (cells["grade"], cells["grade max"], cells["skill"]) == ("37.5", "25.0", "50.5")


def test_several_models_are_told_apart(results: list[MethodResult], tmp_path: Path) -> None:
    write_aggregate(aggregate([*results, replace(results[1], model="n")]), tmp_path / "seeds.csv")
    text = (tmp_path / "seeds.md").read_text()
    assert "| m | lora | fine-tuning | 2 |" in text
    assert "| n | lora | fine-tuning | 1 |" in text
