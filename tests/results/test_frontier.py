"""The frontier: points by method and epsilon, and the comparison at equal evaluation loss, by hand."""

from pathlib import Path

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.results.frontier import at_equal_loss, frontier, write_frontier
from safebasin.results.method_result import MethodResult, Sample
from safebasin.results.records import Outcome
from scipy.stats import ttest_rel

POINTS = {f"{method}[epsilon={e:g}]": (method, e) for method in ("ours", "control") for e in (0.01, 0.1)}
LOSS = {"lora": 1.0, "ours[epsilon=0.01]": 1.005, "ours[epsilon=0.1]": 1.05, "control[epsilon=0.01]": 1.02}
REFUSED = {"lora": 10, "ours[epsilon=0.01]": 80, "ours[epsilon=0.1]": 90, "control[epsilon=0.01]": 60}


def result(label: str, seed: int, model: str = "m") -> MethodResult:
    refused = REFUSED.get(label, 70) + seed
    outcomes = [Outcome.REFUSED if i < refused else Outcome.HARMFUL for i in range(100)]
    samples = [Sample(i, outcome, outcome == Outcome.REFUSED) for i, outcome in enumerate(outcomes)]
    innocent = [Sample(i, Outcome.BENIGN, i < 2 * seed) for i in range(10)]
    stage = "fine-tuning" if label == "lora" else "post-hoc"
    metrics = {"eval_loss": LOSS.get(label, 1.2) + seed, "skill": 50.0 + refused / 10}
    return MethodResult(
        model=model, method=label, stage=stage, seed=seed, metrics=metrics,
        safety={"hrr": samples, "over_refusal": innocent}, model_digest=f"digest of {model}",
    )  # fmt: skip


@pytest.fixture
def frame() -> pd.DataFrame:
    return frontier([result(label, seed) for seed in (0, 1, 2) for label in ("lora", *POINTS)], POINTS)


def test_points(frame: pd.DataFrame) -> None:
    row = frame[(frame["method"] == "ours") & (frame["epsilon"] == 0.1) & (frame["seed"] == 1)].iloc[0]
    assert (row["refusal_rate"], row["hrr"], row["over_refusal"], row["skill"]) == (91.0, 9.0, 20.0, 59.1)
    assert frame[frame["method"] == "lora"]["epsilon"].isna().all()
    assert len(frame) == 15


@pytest.mark.parametrize(
    ("budget", "ours", "control"),
    [(0.0, 11.0, 11.0), (0.01, 81.0, 11.0), (0.02, 81.0, 61.0), (0.1, 91.0, 61.0), (0.3, 91.0, 71.0)],
)
def test_the_largest_epsilon_within_the_budget_is_chosen(
    frame: pd.DataFrame, budget: float, ours: float, control: float
) -> None:
    table = at_equal_loss(frame, "ours", [budget + 1e-9]).set_index("method")
    assert table["refusal_rate"].to_dict() == {"ours": ours, "control": control}


def test_p_is_the_paired_t_test_over_seeds(frame: pd.DataFrame) -> None:
    frame = frame.copy()
    control = (frame["method"] == "control") & (frame["epsilon"] == 0.1)
    frame.loc[control, "refusal_rate"] = [70.0, 75.0, 72.0]
    table = at_equal_loss(frame, "ours", [0.3]).set_index("method")
    assert table.loc["control", "refusal_rate_p"] == pytest.approx(ttest_rel([70, 75, 72], [90, 91, 92]).pvalue)
    assert pd.isna(table.loc["ours", "refusal_rate_p"])
    assert pd.isna(table.loc["control", "over_refusal_p"])  # the same in every seed


def test_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    written = write_frontier(frame, tmp_path)
    equal = ["frontier-at-equal-loss.csv", "frontier-at-equal-loss.md"]
    assert [path.name for path in written] == ["frontier.csv", *equal, "frontier.svg"]
    assert len(pd.read_csv(written[0])) == 15
    assert "| 0.01 | ours | 2.0050 | 19.0 | 81.0 | 20.0 | 58.1 |" in written[2].read_text()
    chart = written[3].read_text()
    assert "whole refusals" in chart
    assert "skill" in chart
    write_frontier(frame, tmp_path)
    assert written[3].read_text() == chart


def test_without_a_tuned_model_nothing_is_compared(frame: pd.DataFrame, tmp_path: Path) -> None:
    written = write_frontier(frame[frame["method"] != "lora"], tmp_path)
    assert [path.name for path in written] == ["frontier.csv", "frontier.svg"]


@pytest.fixture
def worlds() -> pd.DataFrame:
    """The same in six worlds with two seeds each, but that the control has fewer refusals in later ones."""
    rows = [(label, seed, f"w{i}") for i in range(6) for seed in (0, 1) for label in ("lora", *POINTS)]
    frame = frontier([result(*row) for row in rows], POINTS)
    frame["refusal_rate"] -= [
        int(m[1]) * (method == "control") for m, method in zip(frame["model"], frame["method"], strict=True)
    ]
    return frame


def test_over_worlds_replicas_are_pairs_of_world_and_seed(worlds: pd.DataFrame) -> None:
    table = at_equal_loss(worlds, "ours", [0.1, 0.3], over_worlds=True).set_index(["budget", "method"])
    ours, control = table.loc[(0.3, "ours")], table.loc[(0.3, "control")]
    assert (ours["worlds"], ours["seeds"], ours["refusal_rate"], control["refusal_rate"]) == (6, 12, 90.5, 68.0)
    assert control["refusal_rate_low"] < 68 < control["refusal_rate_high"]
    assert control["refusal_rate_p"] == 2 / 2**6  # the worlds are the unit, not the twelve fine-tunings
    assert control["refusal_rate_p_holm"] == 2 * 2 / 2**6  # two budgets
    assert pd.isna(control["over_refusal_p"])


def test_each_world_has_its_own_bound(worlds: pd.DataFrame) -> None:
    worlds.loc[worlds["model"] == "w3", "eval_loss"] += 5
    table = at_equal_loss(worlds, "ours", [0.01], over_worlds=True).set_index("method")
    assert table.loc["ours", "refusal_rate"] == 80.5


def test_models_that_are_no_replicas_are_not_averaged(worlds: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="w0, w1, w2, w3, w4, w5 are not averaged"):
        at_equal_loss(worlds, "ours")
    assert [path.name for path in write_frontier(worlds, tmp_path)] == ["frontier.csv"]
    assert len(write_frontier(worlds, tmp_path, over_worlds=True)) == 4
    assert "sign-flip test over 6 worlds" in (tmp_path / "frontier-at-equal-loss.md").read_text()


def test_a_method_that_lacks_a_replica_is_not_compared(worlds: pd.DataFrame, tmp_path: Path) -> None:
    less = worlds[(worlds["method"] != "control") | (worlds["model"] != "w2")]
    with pytest.raises(InputError, match=r"'control' has no finished row in 2 replicas \(w2, seed 0; w2, seed 1\)"):
        at_equal_loss(less, "ours", over_worlds=True)
    write_frontier(less, tmp_path, over_worlds=True)
    assert (
        "Not compared, as they have no finished row in some world or seed: control."
        in (tmp_path / "frontier-at-equal-loss.md").read_text()
    )


def test_frontiers_of_two_machines_are_refused(frame: pd.DataFrame) -> None:
    joined = pd.concat([frame, frame.assign(model_digest="digest of another", seed=frame["seed"] + 3)])
    with pytest.raises(InputError, match="2 different models"):
        at_equal_loss(joined, "ours")
