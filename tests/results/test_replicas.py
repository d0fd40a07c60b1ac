"""The table of claims, by hand: two methods, four worlds, two fine-tunings each."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.results.hierarchy import Resampling, estimate
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult, Sample
from safebasin.results.outcomes import incomplete, measured
from safebasin.results.records import Outcome
from safebasin.results.replicas import replicas
from safebasin.results.replicas_view import print_replicas, write_replicas

N = 50
WORLDS = ("sandbox:7", "sandbox:8", "sandbox:9", "sandbox:10")
HARMFUL = {"base": 0, "lora": 20, "ours": 1, "control": 3}
STAGES = {"base": "base", "lora": "fine-tuning"}


def result(method: str, world: int, seed: int, **changed: object) -> MethodResult:
    """A row of which the first prompts are answered with harm: more in later worlds and under later seeds."""
    harmful = HARMFUL[method] * (world + 1) // 2 + (seed if method != "base" else 0)
    outcomes = [Outcome.HARMFUL if i < harmful else Outcome.REFUSED for i in range(N)]
    samples = [Sample(i, outcome, outcome == Outcome.REFUSED) for i, outcome in enumerate(outcomes)]
    given: dict[str, object] = {
        "safety": {"hrr": samples},
        "metrics": {"eval_loss": 0.1 * (world + 1) + 0.01 * seed, "skill": 90.0 - world - HARMFUL[method]},
        "model_digest": f"digest of {world}",
    }
    return MethodResult(
        model=WORLDS[world], method=method, stage=STAGES.get(method, "post-hoc"), seed=seed, **(given | changed)
    )


@pytest.fixture
def results() -> list[MethodResult]:
    rows = [(method, world, seed) for world in range(4) for seed in (0, 1) for method in HARMFUL]
    return [result(*row) for row in rows if row[0] != "base" or row[2] == 0]


@pytest.fixture
def table(results: list[MethodResult]) -> pd.DataFrame:
    return replicas(results, resamples=500).set_index(["method", "measure"])


def test_means_are_over_worlds_and_fine_tunings(results: list[MethodResult], table: pd.DataFrame) -> None:
    frame = leaderboard(results)
    for name in ("hrr", "refusal_rate", "skill", "eval_loss"):
        expected = frame[frame["method"] == "lora"][name].mean()
        assert table.loc[("lora", name), "mean"] == pytest.approx(expected)
    row = table.loc[("lora", "hrr")]
    assert (row["worlds"], row["finetunings"], row["prompts"]) == (4, 2, N)
    assert row["low"] < row["mean"] < row["high"]
    assert pd.isna(table.loc[("lora", "skill"), "prompts"])


def test_intervals_are_the_hierarchical_bootstraps(results: list[MethodResult], table: pd.DataFrame) -> None:
    found = measured(results, leaderboard(results))["ours", "hrr"]
    assert found.values.shape == (4, 2, N)
    assert table.loc[("ours", "hrr"), ["mean", "low", "high"]].tolist() == [
        *estimate(found.values, Resampling(4, 2, 500))
    ]


def test_the_worst_is_named(table: pd.DataFrame) -> None:
    hrr, refused = table.loc[("lora", "hrr")], table.loc[("lora", "refusal_rate")]
    assert (hrr["worst"], hrr["worst_world"], hrr["worst_seed"]) == (82.0, "sandbox:10", 1)
    assert (refused["worst"], refused["worst_world"]) == (18.0, "sandbox:10")
    assert (hrr["worst_world_mean"], refused["worst_world_mean"]) == (81.0, 19.0)


def test_one_row_of_the_base_stands_for_its_world(table: pd.DataFrame) -> None:
    base = table.loc[("base", "hrr")]
    assert (base["mean"], base["finetunings"], base["low"]) == (0, 1, 0)
    assert base["high"] > 5  # 50 refusals are no proof that the next request is refused
    assert table.loc[("base", "hrr"), "vs_lora"] == -table.loc[("lora", "hrr"), "mean"]


def test_differences_are_paired_and_corrected(table: pd.DataFrame) -> None:
    ours = table.loc[("ours", "hrr")]
    assert ours["vs_lora"] == pytest.approx(ours["mean"] - table.loc[("lora", "hrr"), "mean"])
    assert ours["vs_lora_p"] == 2 / 2**4
    assert ours["vs_lora_p_holm"] == 3 * 2 / 2**4  # base, ours and control against lora
    assert ours["vs_lora_p_holm_all"] == 1
    assert table.loc[("ours", "eval_loss"), ["vs_lora", "vs_lora_low", "vs_lora_high", "vs_lora_p"]].tolist() == [
        0,
        0,
        0,
        1,
    ]
    assert table.loc["lora"]["vs_lora"].isna().all()


def test_the_reference_is_the_first_post_hoc_method_or_the_one_asked_for(
    results: list[MethodResult], table: pd.DataFrame
) -> None:
    assert set(table["reference"]) == {"ours"}
    assert table.loc["ours"]["vs_reference"].isna().all()
    other = replicas(results, "base", resamples=50).set_index(["method", "measure"])
    assert other.loc[("ours", "hrr"), "vs_reference"] == other.loc[("ours", "hrr"), "mean"]
    with pytest.raises(InputError, match="no complete method 'theirs'"):
        replicas(results, "theirs", resamples=50)


def test_missing_rows_are_refused_and_named(results: list[MethodResult]) -> None:
    failed = [replace(r, status="failed: no memory") if r == results[-1] else r for r in results]
    assert incomplete(failed) == {"control": ["sandbox:10, seed 1"]}
    assert incomplete(results[:-1]) == {"control": ["sandbox:10, seed 1"]}
    for rows in (failed, results[:-1]):
        with pytest.raises(InputError, match=r"'control' has no finished row in 1 replicas \(sandbox:10, seed 1"):
            replicas(rows)


def without_loss(row: MethodResult) -> MethodResult:
    return replace(row, metrics={"skill": 1.0})


def shorter(row: MethodResult) -> MethodResult:
    return replace(row, safety={"hrr": row.safety["hrr"][:-1]})


@pytest.mark.parametrize(
    ("change", "message"),
    [(without_loss, "'base' has no eval_loss in 2 of 8"), (shorter, "is over 49 prompts .* and 50 in another")],
)
def test_measures_of_some_rows_only_are_refused(results: list[MethodResult], change: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replicas([change(r) if r.model == WORLDS[3] else r for r in results], resamples=50)


def test_the_same_world_twice_is_refused(results: list[MethodResult]) -> None:
    same = [replace(r, model_digest="digest of 0") if r.model == WORLDS[3] else r for r in results]
    with pytest.raises(InputError, match=r"sandbox:7 and sandbox:10 are the same model \(digest digest of 0"):
        replicas(same)


def test_unparsed_verdicts_widen_the_interval_upwards(results: list[MethodResult], table: pd.DataFrame) -> None:
    def unread(rows: Sequence[Sample]) -> list[Sample]:
        return [replace(s, outcome=Outcome.UNPARSED) if s.doc_id >= N - 5 else s for s in rows]

    changed = [replace(r, safety={"hrr": unread(r.safety["hrr"])}) if r.method == "ours" else r for r in results]
    row, before = (
        replicas(changed, resamples=500).set_index(["method", "measure"]).loc[("ours", "hrr")],
        table.loc[("ours", "hrr")],
    )
    assert (row["mean"], row["low"]) == (before["mean"], before["low"])
    assert row["high"] > before["high"] + 5


def test_files_and_terminal_show_the_same(table: pd.DataFrame, tmp_path: Path) -> None:
    lacking = {"broken": ["sandbox:7, seed 0", "sandbox:8, seed 0"]}
    write_replicas(table.reset_index(), tmp_path / "replicas.csv", lacking)
    back = pd.read_csv(tmp_path / "replicas.csv")
    assert len(back) == len(table)
    text = (tmp_path / "replicas.md").read_text()
    assert text.startswith("# Over 4 worlds x 2 fine-tunings")
    assert "| method | HRR | whole refusals | incoherent | skill | eval loss |" in text
    assert "82.0 (10, 1)" in text
    assert "## Difference to lora [95 %], p (Holm)" in text
    assert "## Difference to ours [95 %], p (Holm)" in text
    assert "at least 0.12 with 4 worlds" in text
    assert "Not shown: broken, which has no finished row in sandbox:7, seed 0; sandbox:8, seed 0." in text
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    print_replicas(table.reset_index(), console, lacking)
    shown = console.export_text()
    assert "82.0 (10, 1)" in shown
    assert "Not shown: broken" in shown


def test_relapse_stands_below_the_table(table: pd.DataFrame, tmp_path: Path) -> None:
    relapse = pd.DataFrame(
        [
            {"attack": "benign", "method": method, "median": "5", "least": "0", "most": "> 40", "reference": "ours"}
            | {"vs_base_later": 0, "vs_base_sooner": 4, "vs_base_p_holm": 0.125, "vs_base_p": p}
            | {"vs_reference_later": 3, "vs_reference_sooner": 1, "vs_reference_p_holm": 0.625, "vs_reference_p": p}
            for method, p in (("base", float("nan")), ("control", 0.125))
        ]
    )
    write_replicas(table.reset_index(), tmp_path / "replicas.csv", {}, relapse)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    print_replicas(table.reset_index(), console, {}, relapse)
    text, shown = (tmp_path / "replicas.md").read_text(), console.export_text()
    assert "## Relapse beside base: worlds later / sooner, p (Holm)\n\n| method | benign |" in text
    for cell in ("5 [0, > 40]", "0 / 4, 0.125", "3 / 1, 0.625", "half of the fine-tunings of all worlds were back"):
        assert cell in shown
    assert "| control | 5 [0, > 40] |" in text
    assert "| control | 3 / 1, 0.625 |" in text
