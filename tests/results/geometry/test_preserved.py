"""The claim's statistics: on tables where the answer is known, and against scipy's own."""

import numpy as np
import pandas as pd
import pytest
from safebasin.results.geometry.preserved import ALL, CONTROL, predicted, preserved
from scipy.stats import spearmanr, ttest_rel


def correlations(values: dict[tuple[str, str], list[float]], seeds: int = 1) -> pd.DataFrame:
    """r of each set and target, of one cell after the other."""
    return pd.DataFrame(
        [
            {"model": f"m{place // seeds}", "seed": place % seeds, "set": name, "target": target, "partial": r}
            for (name, target), each in values.items()
            for place, r in enumerate(each)
        ]
    )


def test_like_is_compared_with_like_in_fisher_s_z() -> None:
    draw = np.random.default_rng(0)
    sets = [("harmful", "prompt"), ("harmful", "affirmative"), ("a", "prompt"), ("a", "answer"), ("b", "answer")]
    z = {key: draw.normal(1, 0.3, 8) for key in sets}
    found = preserved(correlations({key: np.tanh(each).tolist() for key, each in z.items()})).set_index(
        ["target", "set"]
    )
    assert list(found.index) == [("prompt", "a"), ("affirmative", "a"), ("affirmative", "b"), ("affirmative", ALL)]
    one = found.loc["prompt", "a"]
    differences = z["harmful", "prompt"] - z["a", "prompt"]
    assert one["difference"] == pytest.approx(differences.mean())
    assert (one["least"], one["most"]) == pytest.approx((differences.min(), differences.max()))
    assert one["harmful"] == pytest.approx(np.tanh(z["harmful", "prompt"].mean()))
    assert one["other"] == pytest.approx(np.tanh(z["a", "prompt"].mean()))
    student = ttest_rel(z["harmful", "prompt"], z["a", "prompt"]).confidence_interval()
    assert (one["low"], one["high"]) == pytest.approx(tuple(student), abs=0.06)  # the bootstrap's is near Student's
    mean = found.loc["affirmative", ALL]
    assert mean["difference"] == pytest.approx(
        (z["harmful", "affirmative"] - (z["a", "answer"] + z["b", "answer"]) / 2).mean()
    )
    assert (found["p_holm"] >= found["p"]).all()


def test_a_difference_of_one_sign_in_all_models_has_the_smallest_p_and_models_are_the_unit() -> None:
    high, low = [0.9, 0.92, 0.94, 0.91, 0.93, 0.95], [0.1, 0.3, 0.2, 0.15, 0.25, 0.2]
    six = preserved(correlations({("harmful", "prompt"): high, ("a", "prompt"): low}))
    assert six["p"].item() == 2 / 2**6
    assert six["low"].item() > 0
    three = preserved(correlations({("harmful", "prompt"): high, ("a", "prompt"): low}, seeds=2))
    assert (three["models"].item(), three["cells"].item()) == (3, 6)
    assert three["p"].item() == 2 / 2**3


def test_of_each_model_as_many_fine_tunings_are_taken() -> None:
    table = correlations({("harmful", "prompt"): [0.9, 0.1, 0.9, 0.1], ("a", "prompt"): [0.5] * 4}, seeds=2)
    found = preserved(table[(table["model"] == "m0") | (table["seed"] == 0)]).iloc[0]
    assert (found["models"], found["cells"]) == (2, 2)
    assert found["difference"] == found["least"] == pytest.approx(np.arctanh(0.9) - np.arctanh(0.5))


def test_a_set_without_r_in_some_cell_is_left_out_and_r_of_1_is_finite() -> None:
    values = {("harmful", "prompt"): [1.0, 1.0, 0.9], ("a", "prompt"): [0.5, np.nan, 0.5], ("b", "prompt"): [0.5] * 3}
    found = preserved(correlations(values))
    assert found["set"].tolist() == ["b"]
    assert np.isfinite(found["difference"].item())
    assert preserved(correlations({("a", "prompt"): [0.5] * 3})).empty


def test_of_one_cell_there_is_no_interval() -> None:
    one = preserved(correlations({("harmful", "prompt"): [0.9], ("a", "prompt"): [0.5]})).iloc[0]
    assert one["difference"] == pytest.approx(np.arctanh(0.9) - np.arctanh(0.5))
    assert np.isnan([one["low"], one["high"]]).all()
    assert one["p"] == 1


def cells(x: np.ndarray, undone: np.ndarray, drift: np.ndarray, each: int = 1) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": [f"m{place // each}" for place in range(len(x))],
            "seed": [place % each for place in range(len(x))],
            "method": "repair", CONTROL: drift, "refusal": x, "undone": undone,
        }
    )  # fmt: skip


def test_ranks_are_spearman_s_and_the_drift_is_taken_out() -> None:
    draw = np.random.default_rng(1)
    drift = draw.uniform(10, 100, 40)
    x, undone = -drift + draw.normal(0, 8, 40), -drift + draw.normal(0, 8, 40)  # alike by their drift alone
    found = predicted(cells(x, undone, drift), resamples=300).set_index("predictor")
    assert list(found.index) == ["refusal", CONTROL]
    assert found.loc["refusal", "rho"] == pytest.approx(spearmanr(x, undone).statistic)
    assert found.loc[CONTROL, "rho"] == pytest.approx(spearmanr(drift, undone).statistic)
    assert found.loc["refusal", "rho_low"] > 0.5
    assert found.loc["refusal", "given_drift_low"] < 0 < found.loc["refusal", "given_drift_high"]
    ranks = [pd.Series(each).rank().to_numpy() for each in (x, undone, drift)]
    design = np.stack([np.ones(40), ranks[2]], 1)
    left = [each - design @ np.linalg.lstsq(design, each, rcond=None)[0] for each in ranks[:2]]
    assert found.loc["refusal", "given_drift"] == pytest.approx(np.corrcoef(*left)[0, 1])
    assert np.isnan(found.loc[CONTROL, "given_drift"])


def test_models_are_drawn_whole_so_copies_of_a_cell_are_no_evidence() -> None:
    draw = np.random.default_rng(2)
    x, undone, drift = (draw.normal(0, 1, 8) for _ in range(3))
    alone = predicted(cells(x, undone, drift)).iloc[0]
    copied = predicted(cells(*(np.repeat(each, 5) for each in (x, undone, drift)), each=5)).iloc[0]
    assert (copied["models"], copied["cells"]) == (8, 40)
    for name in ("rho", "rho_low", "rho_high"):
        assert copied[name] == pytest.approx(alone[name], abs=1e-9)


def test_few_cells_tell_nothing() -> None:
    some = np.arange(3.0)
    found = predicted(cells(some, some, some))
    assert found[["rho", "rho_low", "given_drift"]].isna().all(axis=None)


def test_what_does_not_vary_predicts_nothing() -> None:
    draw = np.random.default_rng(3)
    found = predicted(cells(np.ones(9), draw.normal(0, 1, 9), draw.normal(0, 1, 9))).iloc[0]
    assert np.isnan(found["rho"])
    assert np.isnan(found["rho_low"])
