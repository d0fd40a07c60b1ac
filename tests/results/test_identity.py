"""Rows of different models under one name are never put into one table."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safebasin.errors import InputError
from safebasin.results.aggregate import aggregate
from safebasin.results.export import read_csv, write_csv
from safebasin.results.frontier import frontier
from safebasin.results.leaderboard import leaderboard
from safebasin.results.method_result import MethodResult
from safebasin.results.replicas import replicas

HERE, THERE = "a" * 64, "b" * 64
REFUSED = r"rows of 'sandbox' are of 2 different models \(digests aaaaaaaaaaaa, bbbbbbbbbbbb\)"


@pytest.fixture
def mixed(make) -> list[MethodResult]:
    """Seed 0 from one machine, seed 1 from another."""
    rows = [make("lora", "fine-tuning", hrr="HHRR", seed=seed, metrics={"eval_loss": 1.0}) for seed in (0, 1)]
    return [replace(row, model_digest=digest) for row, digest in zip(rows, (HERE, THERE), strict=True)]


@pytest.mark.parametrize("make_table", [leaderboard, aggregate, replicas, lambda rows: frontier(rows, {})])
def test_no_table_mixes_them(mixed: list[MethodResult], make_table) -> None:
    with pytest.raises(InputError, match=REFUSED):
        make_table(mixed)
    make_table([replace(row, model_digest=HERE, method="lora") for row in mixed])


def test_rows_without_a_digest_are_not_checked(mixed: list[MethodResult]) -> None:
    frame = leaderboard([mixed[0], replace(mixed[1], model_digest="")])
    assert frame["model_digest"].isna().tolist() == [False, True]


def test_joined_csvs_of_two_machines_are_refused(mixed: list[MethodResult], tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    write_csv(pd.concat([leaderboard([row]) for row in mixed]), path)
    with pytest.raises(InputError, match=REFUSED):
        read_csv(path)


def test_a_row_that_is_there_twice_is_refused(mixed: list[MethodResult], tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.csv"
    write_csv(pd.concat([leaderboard(mixed[:1])] * 2), path)
    with pytest.raises(InputError, match="sandbox / lora / seed 0 more than once"):
        read_csv(path)
