"""Steps to half the drift, in closed cases; what was not reached is no number."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.results.display import displayed
from safebasin.results.export import read_csv, write_csv
from safebasin.results.html import Report
from safebasin.results.html.charts import charts
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult, Relapse
from safebasin.results.relapse import curves, half_levels, relapse_cells, steps_to, write_relapse

from .conftest import Make, judged

Curve = list[tuple[int, float]]


@pytest.mark.parametrize(
    ("curve", "text"),
    [
        ([(0, 0.0), (10, 20.0), (20, 40.0)], "15"),  # half way between the two
        ([(0, 0.0), (10, 30.0), (20, 90.0)], "10"),  # on a measured step
        ([(0, 10.0), (40, 90.0)], "10"),
        ([(0, 0.0), (3, 45.0)], "2"),
        ([(0, 0.0), (7, 42.0)], "5"),
        ([(0, 0.0), (10, 31.0)], "9.7"),
        ([(0, 30.0), (10, 0.0)], "0"),  # there before the first step
        ([(0, 80.0), (10, 90.0)], "0"),
        ([(0, 0.0), (10, 29.9), (80, 29.9)], "> 80"),  # never
        ([(0, 0.0), (10, 60.0), (20, 0.0), (40, 60.0)], "5"),  # it fell back, and the first time counts
        ([(0, 30.0), (10, 30.0)], "0"),  # a tie at the beginning
        ([(0, 20.0), (10, 20.0), (20, 30.0)], "20"),  # a flat stretch below
        ([(0, 0.0)], "> 0"),
    ],
)
def test_the_first_steps_at_which_a_curve_is_at_30(curve: Curve, text: str) -> None:
    assert steps_to(30.0, curve).text == text


def attacked(curve: Mapping[int, str], name: str = "benign") -> dict[str, Relapse]:
    return {name: Relapse({steps: judged(letters) for steps, letters in curve.items()}, minutes=1.5, peak_gb=0.5)}


BASE, LORA, REPAIRED = (
    attacked({0: "RRRR", 10: "RRRR", 20: "HRRR"}),
    attacked({0: "HHHR", 10: "HHHH", 20: "HHHH"}),
    attacked({0: "RRRR", 10: "HRRR", 20: "HHRR"}),
)


@pytest.fixture
def results(make: Make) -> list[MethodResult]:
    return [
        make("base", "base", hrr="RRRR", relapse=BASE),
        make("lora", "fine-tuning", hrr="HHHR", relapse=LORA),
        make("shrink", hrr="RRRR", relapse=REPAIRED),
    ]


def test_half_lies_between_base_and_lora_before_the_fine_tuning(results: list[MethodResult]) -> None:
    assert half_levels(results) == {("sandbox", 0, "benign"): 37.5}
    assert relapse_cells(results) == [{"relapse_benign": "> 20"}, {"relapse_benign": "0"}, {"relapse_benign": "15"}]


def test_the_base_of_the_first_seed_is_that_of_all(make: Make) -> None:
    rows = [make("base", "base", seed=0, relapse=BASE), make("lora", "fine-tuning", seed=1, relapse=LORA)]
    assert half_levels(rows) == {("sandbox", 1, "benign"): 37.5}


@pytest.mark.parametrize("letters", ["RRRR", "RRRI"])
def test_without_drift_there_is_no_half_of_it(make: Make, letters: str) -> None:
    same = attacked({0: letters, 10: "HHHH"})
    rows = [make("base", "base", relapse=BASE), make("lora", "fine-tuning", relapse=same)]
    assert half_levels(rows) == {}
    assert relapse_cells(rows) == [{}, {}]
    assert leaderboard(rows)["relapse_benign"].isna().all()


def test_a_row_that_lacks_its_beginning_gives_no_level(make: Make) -> None:
    rows = [make("base", "base", relapse=attacked({10: "RRRR"})), make("lora", "fine-tuning", relapse=LORA)]
    assert half_levels(rows) == {}


def test_the_column_is_text_that_nothing_can_average(results: list[MethodResult], tmp_path: Path) -> None:
    frame = leaderboard(results)
    assert list(frame.columns)[-1] == "relapse_benign"
    assert frame["relapse_benign"].tolist() == ["> 20", "0", "15"]
    assert not pd.api.types.is_numeric_dtype(frame["relapse_benign"])
    write_csv(frame, tmp_path / "leaderboard.csv")
    pd.testing.assert_frame_equal(read_csv(tmp_path / "leaderboard.csv"), frame)
    (column,) = [each for each in displayed(frame, "terminal") if each.source == "relapse_benign"]
    assert column.header == "relapse benign"
    assert "not within so many" in column.meaning


def test_a_run_without_it_has_no_column(make: Make) -> None:
    assert not [name for name in leaderboard([make("base", "base", hrr="RR")]).columns if name.startswith("relapse")]


def test_a_metric_may_not_take_its_name(make: Make) -> None:
    with pytest.raises(InputError, match=r"relapse_mine.*rename"):
        make("base", "base", hrr="RR", metrics={"relapse_mine": 1.0})


def test_the_table_has_every_measured_step(results: list[MethodResult], tmp_path: Path, make: Make) -> None:
    frame = curves([*results, make("resta", hrr="RRRR", relapse=attacked({0: "HUTI"}, "harmful10"))])
    own = frame[frame["method"] == "shrink"]
    assert own["steps"].tolist() == [0, 10, 20]
    assert own["hrr"].tolist() == [0.0, 25.0, 50.0]
    assert own["half"].tolist() == [37.5] * 3
    assert own["minutes"].tolist() == [1.5] * 3
    last = frame.iloc[-1]
    assert (last["hrr"], last["unparsed_rate"], last["incoherent_rate"], last["n"]) == (25.0, 50.0, 25.0, 4)
    assert last["hrr_high"] > 75  # two of them may be harm
    assert pd.isna(last["half"])
    write_relapse(results, tmp_path)
    assert len(pd.read_csv(tmp_path / "relapse.csv")) == 9
    write_relapse([make("base", "base", hrr="RR")], tmp_path / "nowhere")


def chart(results: list[MethodResult], **about: Any) -> dict[str, Any]:
    drawn = charts(Report(results=results, frame=leaderboard(results), **about))
    (found,) = [each for each in drawn if each.section == "Relapse"]
    return {"caption": found.caption, "spec": found.spec}


def test_the_chart_has_a_line_per_method_and_the_level(results: list[MethodResult]) -> None:
    found = chart(results)
    rows = found["spec"]["data"]["values"]
    assert [(row["method"], row["steps"], row["hrr"]) for row in rows][-3:] == [
        ("shrink", 0, 0.0), ("shrink", 10, 25.0), ("shrink", 20, 50.0),
    ]  # fmt: skip
    assert rows[-1]["low"] < 50 < rows[-1]["high"]
    assert found["spec"]["layer"][1]["data"]["values"] == [{"half": 37.5}]
    assert "95 % interval" in found["caption"]


def test_over_seeds_it_shows_means_and_the_range(
    results: list[MethodResult], make: Callable[..., MethodResult]
) -> None:
    other = make("shrink", seed=1, hrr="RRRR", relapse=attacked({0: "RRRR", 10: "HHHR", 20: "HHHH"}))
    found = chart([*results, other])
    last = found["spec"]["data"]["values"][-1]
    assert (last["hrr"], last["low"], last["high"]) == (75.0, 50.0, 100.0)
    assert "lowest row" in found["caption"]
