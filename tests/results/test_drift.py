"""Drift and the recovered share: exact cases, Fieller's interval against draws, coverage, and what has no share."""

from collections.abc import Callable

import numpy as np
import pytest
from safebasin.errors import InputError
from safebasin.results.drift import COLUMNS, drift, drift_table
from safebasin.results.hierarchy import Resampling
from safebasin.results.method_result import MethodResult
from safebasin.results.outcomes import Measured
from safebasin.results.statistics import paired_difference

Make = Callable[..., MethodResult]


def measured(*rates: float, prompts: int = 200, unparsed: int = 0) -> Measured:
    """One fine-tuning per world, the first prompts harmful; the last ones unparsed."""
    values = np.array([[100.0 * (np.arange(prompts) < rate / 100 * prompts)] for rate in rates])
    most = values.copy()
    most[..., prompts - unparsed :] = 100.0
    return Measured(values, most if unparsed else values)


def test_the_share_is_that_of_the_way_back() -> None:
    found = drift(measured(10), measured(60), measured(20), Resampling(1, 1))
    assert (found.base, found.tuned, found.restored) == (10, 60, 20)
    assert (found.drift.value, found.left.value) == (50, 10)
    assert found.recovered is not None
    assert found.recovered.value == pytest.approx(80)
    assert found.recovered.low < 80 < found.recovered.high < 100


def test_its_interval_is_the_quantile_of_the_ratio_in_the_draws() -> None:
    draws, base, tuned, restored = Resampling(1, 1), measured(10), measured(60), measured(20)
    found = drift(base, tuned, restored, draws).recovered
    ratio = draws.means(tuned.values - restored.values) / draws.means(tuned.values - base.values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tuple(100 * np.quantile(ratio, [0.025, 0.975])), abs=0.1)


def test_over_worlds_that_differ_it_is_wider() -> None:
    alike = drift(measured(0, 0, 0, 0), measured(*[60] * 4), measured(*[20] * 4), Resampling(4, 1)).recovered
    unlike = drift(measured(0, 0, 0, 0), measured(*[60] * 4), measured(0, 10, 30, 40), Resampling(4, 1)).recovered
    assert alike is not None
    assert unlike is not None
    assert unlike.value == pytest.approx(alike.value)
    assert unlike.high - unlike.low > 2 * (alike.high - alike.low)


def test_where_restored_and_base_agree_everywhere_the_interval_is_newcombes() -> None:
    found = drift(measured(0), measured(50), measured(0), Resampling(1, 1))
    none = [False] * 200
    expected = paired_difference(none, none)
    assert (found.left.low, found.left.high) == (expected.low, expected.high)
    assert found.recovered is not None
    assert found.recovered.value == 100
    assert found.recovered.low == pytest.approx(100 * (1 - expected.high / found.drift.low))
    assert found.recovered.low < 97.5


def test_and_where_nothing_was_undone() -> None:
    found = drift(measured(0), measured(50), measured(50), Resampling(1, 1)).recovered
    same = [i < 100 for i in range(200)]
    assert found is not None
    assert found.value == 0
    low = drift(measured(0), measured(50), measured(50), Resampling(1, 1)).drift.low
    assert found.high == pytest.approx(100 * paired_difference(same, same).high / low)


def test_no_drift_no_share() -> None:
    assert drift(measured(10), measured(10), measured(5), Resampling(1, 1)).recovered is None
    assert drift(measured(10), measured(11), measured(5), Resampling(1, 1)).recovered is None


def test_a_measure_may_drift_downwards() -> None:
    found = drift(measured(60), measured(10), measured(50), Resampling(1, 1)).recovered
    assert found is not None
    assert found.value == pytest.approx(80)
    assert found.low < 80 < found.high


def test_unparsed_verdicts_widen_it_both_ways() -> None:
    plain = drift(measured(10), measured(60), measured(20), Resampling(1, 1)).recovered
    for place in range(3):
        given = [measured(rate, unparsed=20 * (place == i)) for i, rate in enumerate((10, 60, 20))]
        found = drift(*given, Resampling(1, 1)).recovered
        assert found is not None
        assert plain is not None
        assert found.value == plain.value
        assert found.low <= plain.low
        assert found.high >= plain.high
        assert found.high - found.low > plain.high - plain.low


def test_it_covers_the_truth() -> None:
    random, draws, held = np.random.default_rng(0), Resampling(1, 1, resamples=1000), 0
    for _ in range(300):
        score = random.random(200)  # prompts are hard or easy for all three models
        base, tuned, restored = (
            (100.0 * ((score + random.normal(0, 0.05, 200)) < rate))[None, None] for rate in (0.1, 0.6, 0.3)
        )
        found = drift(*(Measured(each, each) for each in (base, tuned, restored)), draws).recovered
        held += found is not None and found.low <= 60 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_a_table_has_a_row_per_method_and_measure(make: Make) -> None:
    base = make("base", "base", hrr="R" * 20, over_refusal="B" * 20)
    lora = make("lora", "fine-tuning", hrr="H" * 12 + "R" * 8, over_refusal="B" * 20)
    fixed = make("curvature", hrr="H" * 3 + "R" * 17, over_refusal="R" * 9 + "B" * 11)
    lost = make("npo", status="failed: no memory")
    table = drift_table([base, lora, fixed, lost], over_worlds=False)
    assert list(table.columns) == list(COLUMNS)
    assert table[["method", "measure"]].to_numpy().tolist() == [
        ["curvature", "hrr"], ["npo", "hrr"], ["curvature", "over_refusal"], ["npo", "over_refusal"],
    ]  # fmt: skip
    row = table.iloc[0]
    assert (row["base"], row["tuned"], row["restored"], row["recovered"]) == (0, 60, 15, 75)
    assert table.iloc[1]["status"] == "failed: no finished row in sandbox, seed 0"
    assert np.isnan(table.iloc[2]["recovered"])  # fine-tuning did not change over-refusal
    assert table.iloc[2]["left"] == 45


def test_models_have_rows_of_their_own_and_worlds_share_them(make: Make) -> None:
    results = [
        make(method, stage, model=model, hrr=letters)
        for model in ("sandbox:1", "sandbox:2", "sandbox:3")
        for method, stage, letters in (
            ("base", "base", "RRRR"),
            ("lora", "fine-tuning", "HHHR"),
            ("npo", "post-hoc", "HRRR"),
        )
    ]
    assert drift_table(results, over_worlds=True)[["model", "worlds"]].to_numpy().tolist() == [["3 worlds", 3]]
    assert drift_table(results, over_worlds=False)["model"].tolist() == ["sandbox:1", "sandbox:2", "sandbox:3"]


def test_without_base_or_fine_tuned_model_there_is_none(make: Make) -> None:
    rows = [make("base", "base", hrr="RR"), make("npo", hrr="HR")]
    with pytest.raises(InputError, match="finished row 'lora'; there are base, npo"):
        drift_table(rows, over_worlds=False)
    with pytest.raises(InputError, match="finished row 'base'"):
        drift_table([make("lora", "fine-tuning", hrr="HH")], over_worlds=False)
