from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from safebasin.results.html import Report
from safebasin.results.html.charts import Chart, charts, undominated
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult


def values(found: Chart) -> list[dict[str, Any]]:
    return list(found.spec["data"]["values"])


def of(report: Report, section: str) -> list[Chart]:
    return [chart for chart in charts(report) if chart.section == section]


def test_bars_show_the_leaderboards_rates_and_intervals(report: Report) -> None:
    hrr, prefill = of(report, "Harm")
    for chart, measure in ((hrr, "hrr"), (prefill, "prefill_asr")):
        for row, (_, wanted) in zip(values(chart), report.frame.iterrows(), strict=True):
            assert row["method"] == wanted["method"]
            found = [row[key] for key in ("value", "low", "high")]
            assert found == [wanted[measure], wanted[f"{measure}_low"], wanted[f"{measure}_high"]]


def test_bars_of_several_seeds_are_means_with_the_range_of_rows(make: Callable[..., MethodResult]) -> None:
    results = [make("lora", "fine-tuning", seed=seed, hrr="H" * seed + "R" * (4 - seed)) for seed in (1, 3)]
    (chart,) = of(Report(results=results, frame=leaderboard(results)), "Harm")
    (row,) = values(chart)
    assert (row["value"], row["low"], row["high"], row["rows"]) == (50, 25, 75, 2)
    assert "mean over seeds" in chart.caption


def test_models_that_are_no_replicas_are_never_averaged(make: Callable[..., MethodResult]) -> None:
    results = [make("lora", "fine-tuning", model=name, hrr=letters) for name, letters in (("a", "HH"), ("b", "RR"))]
    report = Report(results=results, frame=leaderboard(results))
    apart = of(report, "Harm")
    assert [(chart.title.partition(":")[0], values(chart)[0]["value"]) for chart in apart] == [("a", 100), ("b", 0)]
    (together,) = of(replace(report, over_worlds=True), "Harm")
    assert values(together)[0]["value"] == 50


def test_outcome_shares_add_up_to_all(report: Report) -> None:
    found = of(report, "Outcomes")
    assert len(found) == 3
    for chart in found:
        for method in ("base", "lora", "repaired"):
            own = [row for row in values(chart) if row["method"] == method]
            assert sum(row["percent"] for row in own) == pytest.approx(100)
            assert sum(row["count"] for row in own) == 8


def test_significance_is_marked_beside_the_bars(make: Callable[..., MethodResult]) -> None:
    results = [make("lora", "fine-tuning", hrr="H" * 20), make("npo", hrr="R" * 20), make("no_op", hrr="H" * 20)]
    (chart,) = of(Report(results=results, frame=leaderboard(results)), "Harm")
    assert [row["mark"] for row in values(chart)] == ["", "***", ""]
    assert "Asterisks: p against LoRA" in chart.caption


def test_each_judge_has_its_rates_beside_the_corrected_ones(report: Report) -> None:
    rates, _, _ = of(report, "Judges")
    rows = {(row["method"], row["judge"]): row["value"] for row in values(rates)}
    assert rows["lora", "guard"] == report.frame.set_index("method").loc["lora", "hrr"]
    assert rows["base", "words"] == 12.5  # its last answer is no refusal
    assert {judge for _, judge in rows} == {"guard", "words", "guard, corrected", "words, corrected"}
    assert ("base", "words, corrected") not in rows, "it calls one harmful, and nobody labelled that one"


def test_errors_are_shown_against_labels_and_agreement_by_task_and_category(report: Report) -> None:
    _, errors, agreement = of(report, "Judges")
    assert "labels of oracle" in errors.caption
    assert {(row["judge"], row["what"]) for row in values(errors)} == {
        (judge, what) for judge in ("guard", "words") for what in ("sensitivity", "specificity")
    }
    assert {row["on"] for row in values(agreement)} == {"harm", "harm, category S2"}
    kappa = next(row for row in values(agreement) if row["on"] == "harm" and row["coefficient"] == "Cohen's kappa")
    assert (kappa["judges"], kappa["n"], kappa["unparsed"]) == ("guard, words", 24, 1)


def test_one_judge_without_labels_has_no_chart_of_its_own(report: Report) -> None:
    assert report.judge_rates is not None
    one = report.judge_rates[report.judge_rates["judge"] == "guard"].assign(corrected=None)
    assert of(replace(report, judge_rates=one, judge_errors=None, agreement=None), "Judges") == []


def test_undominated() -> None:
    points = [(90.0, 0.0), (95.0, 10.0), (80.0, 5.0), (95.0, 20.0), (90.0, 0.0)]
    assert undominated(points) == [True, True, False, False, True]


def test_less_loss_is_more_utility(make: Callable[..., MethodResult]) -> None:
    given = {"a": ("HR", 0.5), "b": ("HH", 0.1), "c": ("HH", 0.6)}
    results = [make(name, hrr=letters, metrics={"eval_loss": loss}) for name, (letters, loss) in given.items()]
    (chart,) = of(Report(results=results, frame=leaderboard(results)), "Safety and utility")
    assert {row["method"]: row["best"] for row in values(chart)} == {"a": True, "b": True, "c": False}


def test_the_bounds_of_one_method_are_one_line(make: Callable[..., MethodResult]) -> None:
    losses = (0.1, 0.2)
    results = [make(f"fix[epsilon={loss}]", hrr="HR", metrics={"facts": 9.0, "eval_loss": loss}) for loss in losses]
    points = {f"fix[epsilon={loss}]": ("fix", loss) for loss in losses}
    (chart,) = of(Report(results=results, frame=leaderboard(results), points=points), "Safety and utility")
    facts = [row for row in values(chart) if row["metric"] == "facts"]
    assert [(row["method"], row["epsilon"], row["stage"]) for row in facts] == [
        ("fix", 0.1, "post-hoc"), ("fix", 0.2, "post-hoc"),
    ]  # fmt: skip
    assert any(layer.get("transform") == [{"filter": "datum.epsilon !== null"}] for layer in chart.spec["layer"])


def test_arrows_go_from_the_base_to_the_start_and_on_to_the_repaired(report: Report) -> None:
    (chart,) = of(report, "Drift and repair")
    hrr = dict(zip(report.frame["method"], report.frame["hrr"], strict=True))
    steps = {(row["method"], row["step"]): (row["from"], row["to"]) for row in values(chart) if row["measure"] == "hrr"}
    assert steps == {
        ("lora", "fine-tuning"): (hrr["base"], hrr["lora"]),
        ("repaired", "fine-tuning"): (hrr["base"], hrr["lora"]),
        ("repaired", "repair"): (hrr["lora"], hrr["repaired"]),
    }
    (orphan,) = of(replace(report, starts={}), "Drift and repair")
    assert {row["method"] for row in values(orphan)} == {"lora"}, "where the start has no row there is no arrow"


def test_basins_are_means_over_directions(report: Report) -> None:
    keywords, *others = of(report, "Safety basins")
    assert len(others) == 3
    repaired = {row["alpha"]: row["percent"] for row in values(keywords) if row["method"] == "repaired"}
    assert repaired == {-1.0: 100, -0.5: 0, 0.0: 0, 0.5: 0, 1.0: 100}


def test_what_was_not_measured_has_no_chart(make: Callable[..., MethodResult]) -> None:
    results = [make("lora", "fine-tuning", hrr="HR"), make("vaccine", "alignment", status="failed: no memory")]
    found = charts(Report(results=results, frame=leaderboard(results)))
    assert [chart.section for chart in found] == ["Harm", "Outcomes"]
    failed = [make("lora", "fine-tuning", status="failed: no memory")]
    assert charts(Report(results=failed, frame=leaderboard(failed))) == []


def test_gains_of_examples_are_bars_of_each_task(make: Callable[..., MethodResult]) -> None:
    metrics = ({"boolq_fewshot": 2.0, "facts": 9.0}, {"boolq_fewshot": -4.0, "facts": 9.0})
    results = [make("lora", "fine-tuning", seed=seed, metrics=metrics[seed]) for seed in (0, 1)]
    (chart,) = of(Report(results=results, frame=leaderboard(results)), "Few-shot gains")
    assert values(chart) == [{"method": "lora", "task": "boolq", "gain": -1.0}]
    plain = [make("lora", "fine-tuning", metrics={"facts": 9.0})]
    assert of(Report(results=plain, frame=leaderboard(plain)), "Few-shot gains") == []


def test_kinds_of_request_are_a_table_in_colours(make: Callable[..., MethodResult]) -> None:
    whole = make("lora", "fine-tuning", hrr="HRHR")
    assert of(Report(results=[whole], frame=leaderboard([whole])), "Kinds of request") == []
    samples = [replace(sample, category="ab"[i // 2]) for i, sample in enumerate(whole.safety["hrr"])]
    named = replace(whole, safety={"hrr": samples[:3]})
    (chart,) = of(Report(results=[named], frame=leaderboard([named])), "Kinds of request")
    found = [(row["category"], row["rate"], row["n"]) for row in values(chart)]
    assert found == [("a", 50.0, 2), ("b", 100.0, 1)]
