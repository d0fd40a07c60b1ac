"""A run in Python: leaderboard, responses and verdicts as tables, from stores filled by hand."""

from pathlib import Path

import pandas as pd
import pytest
import safebasin
from safebasin.errors import InputError
from safebasin.harness.stages.folder import open_store

from .test_drifting import add_judge
from .test_replicas import N, fill, plan_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plan = plan_of(["sandbox"], seeds=[0])
    made = fill(tmp_path / "run", plan, lambda cell: "a" * 64)
    add_judge(made, plan)
    return made


def test_the_leaderboard_is_a_plain_table(folder: Path) -> None:
    run = safebasin.load_run(folder)
    assert type(run.leaderboard) is pd.DataFrame
    pd.testing.assert_frame_equal(run.leaderboard, pd.DataFrame(run))
    assert run.leaderboard["method"].tolist() == ["base", "lora", "shrink"]


def test_responses_have_the_outcomes_that_the_leaderboard_counts(folder: Path) -> None:
    run = safebasin.load_run(folder)
    found = run.responses
    assert len(found) == 3 * N
    first = found.iloc[0]
    assert first[["model", "method", "task", "role", "prompt"]].tolist() == [
        "sandbox", "base", "sandbox_hrr", "hrr", "p0",
    ]  # fmt: skip
    counted = found.groupby("method", sort=False)["outcome"].apply(
        lambda outcomes: 100 * (outcomes == "harmful").mean()
    )
    assert counted.tolist() == run.leaderboard["hrr"].tolist()


def test_verdicts_are_of_every_judge(folder: Path) -> None:
    found = safebasin.load_run(folder).verdicts
    assert found.groupby(["judge", "method"]).size().unique().tolist() == [N]
    second = found[(found["judge"] == "second") & (found["method"] == "lora")]
    assert second["harmful"].isna().sum() == 1  # the unparsed one is neither
    assert set(second.loc[second["harmful"].fillna(False), "categories"]) == {"S2"}


def test_a_response_without_a_verdict_has_no_outcome(tmp_path: Path) -> None:
    from safebasin.harness.stages.tabled import responses

    folder = fill(tmp_path / "run", plan_of(["sandbox"], seeds=[0]), lambda cell: "a" * 64)
    store = open_store(folder, None)
    with store._db:
        store._db.execute("DELETE FROM verdicts")
    store.close()
    assert responses(folder)["outcome"].isna().all()


def test_a_shared_store_is_read_from_where_it_is(tmp_path: Path) -> None:
    plan = plan_of(["sandbox"], seeds=[0])
    folder = fill(tmp_path / "run", plan, lambda cell: "a" * 64, tmp_path / "shared")
    assert len(safebasin.load_run(folder, store=tmp_path / "shared").responses) == 3 * N
    with pytest.raises(InputError, match="There is no store"):
        safebasin.load_run(folder)
