"""Relapse over worlds, by hand: what half of the worlds reached, and in how many a method held longer."""

from collections.abc import Mapping, Sequence

import pandas as pd
import pytest
from safebasin.results.method_result import MethodResult, Relapse
from safebasin.results.relapse_worlds import relapse_over_worlds

from .conftest import Make, judged

WORLDS = ("sandbox:1", "sandbox:2", "sandbox:3", "sandbox:4", "sandbox:5", "sandbox:6")
NEVER = "RRRR"


def curve(steps: int | None) -> dict[str, Relapse]:
    """At half the drift, an HRR of 50, after exactly so many steps of 40; None: not within them."""
    letters = {0: "RRRR"} if steps != 0 else {0: "HHRR"}
    letters |= {} if steps in (0, None) else {steps - 1: NEVER, steps: "HHRR"}
    letters[40] = NEVER if steps is None else "HHRR"
    return {"benign": Relapse({at: judged(each) for at, each in sorted(letters.items())}, minutes=1.0, peak_gb=1.0)}


DRIFTED = {"benign": Relapse({0: judged("HHHH"), 40: judged("HHHH")}, minutes=1.0, peak_gb=1.0)}


def world(make: Make, name: str, held: Mapping[str, int | None], seed: int = 0) -> list[MethodResult]:
    rows = [make("lora", "fine-tuning", model=name, seed=seed, hrr="HHHH", relapse=DRIFTED)]
    stages = {"base": "base"}
    for method, steps in held.items():
        rows.append(
            make(method, stages.get(method, "post-hoc"), model=name, seed=seed, hrr="RRRR", relapse=curve(steps))
        )
    return rows


def six(
    make: Make, base: Sequence[int | None], ours: Sequence[int | None], other: Sequence[int | None]
) -> pd.DataFrame:
    rows = [
        row
        for name, *steps in zip(WORLDS, base, ours, other, strict=True)
        for row in world(make, name, dict(zip(("base", "ours", "other"), steps, strict=True)))
    ]
    return relapse_over_worlds(rows, "ours").set_index("method")


@pytest.fixture
def table(make: Make) -> pd.DataFrame:
    return six(make, [20, 20, 20, 20, 20, None], [5, 6, 7, 8, 9, 10], [6, 7, 8, 9, 10, None])


def test_the_median_is_when_half_of_the_worlds_are_back(table: pd.DataFrame) -> None:
    assert table.loc["ours", ["median", "least", "most"]].tolist() == ["7", "5", "10"]
    assert table.loc["other", ["median", "least", "most"]].tolist() == ["8", "6", "> 40"]
    assert table.loc["lora", ["median", "least", "most"]].tolist() == ["0", "0", "0"]
    assert table["worlds"].tolist() == [6] * 4
    assert table.loc[["ours", "other"], "reached"].tolist() == [6, 5]


@pytest.mark.parametrize(
    ("held", "median"), [([3, 4, None, None, None, None], "> 40"), ([3, 4, 9, None, None, None], "9")]
)
def test_a_median_that_was_not_reached_is_no_number(make: Make, held: list[int | None], median: str) -> None:
    assert six(make, [20] * 6, held, [1] * 6).loc["ours", "median"] == median


def test_worlds_are_counted_in_which_one_held_longer(table: pd.DataFrame) -> None:
    """`other` holds longer than `ours` in all six worlds: 2 / 2^6. Two that never came back are a tie."""
    row = table.loc["other"]
    assert (row["reference"], row["vs_reference_later"], row["vs_reference_sooner"]) == ("ours", 6, 0)
    assert row["vs_reference_p"] == pytest.approx(2 / 2**6)
    assert (row["vs_base_later"], row["vs_base_sooner"]) == (0, 5)
    assert row["vs_base_p"] == pytest.approx(2 / 2**5)


def test_to_come_back_at_the_last_step_is_sooner_than_never(make: Make) -> None:
    found = six(make, [20] * 6, [40] * 6, [None] * 6).loc["other"]
    assert (found["vs_reference_later"], found["vs_reference_sooner"]) == (6, 0)


def test_tests_are_corrected_over_the_methods_of_one_fine_tuning(table: pd.DataFrame) -> None:
    found = table["vs_base_p"].dropna()
    assert sorted(found.index) == ["lora", "other", "ours"]
    assert found.tolist() == pytest.approx([2 / 2**6, 2 / 2**6, 2 / 2**5])  # lora, ours, other
    assert table["vs_base_p_holm"].dropna().tolist() == pytest.approx([3 * 2 / 2**6] * 3)  # no less than the one before
    assert pd.isna(table.loc["base", "vs_base_p"])
    assert pd.isna(table.loc["ours", "vs_reference_p"])


def test_the_seeds_of_a_world_are_one_vote(make: Make) -> None:
    """World 1: sooner, later, later: later. World 2: sooner, later: a tie, which is no vote."""
    rows = [row for seed, steps in enumerate((9, 2, 2)) for row in world(make, "sandbox:1", {"ours": steps}, seed)]
    rows += [row for seed, steps in enumerate((9, 2)) for row in world(make, "sandbox:2", {"ours": steps}, seed)]
    again = [row for name, seeds in (("sandbox:1", 3), ("sandbox:2", 2)) for seed in range(seeds)
             for row in world(make, name, {"other": 5}, seed) if row.method == "other"]  # fmt: skip
    bases = [row for name in WORLDS[:2] for row in world(make, name, {"base": 20}) if row.method == "base"]
    found = relapse_over_worlds([*bases, *rows, *again], "ours").set_index("method").loc["other"]
    assert (found["vs_reference_later"], found["vs_reference_sooner"], found["rows"]) == (1, 0, 5)
    assert (found["vs_base_later"], found["vs_base_sooner"]) == (0, 2)
    base = relapse_over_worlds([*bases, *rows]).set_index("method").loc["base"]
    assert base["rows"] == 5  # its one curve, at the level of each seed's `lora`


def test_a_world_without_drift_does_not_count(make: Make) -> None:
    rows = [row for name in WORLDS for row in world(make, name, {"base": 20, "ours": 5})]
    still = [*rows[:-3], *(row for row in world(make, WORLDS[-1], {"base": 0, "ours": 5}) if row.method != "lora")]
    still.append(make("lora", "fine-tuning", model=WORLDS[-1], hrr="HHRR", relapse=curve(0)))
    found = relapse_over_worlds(still).set_index("method").loc["ours"]
    assert (found["worlds"], found["vs_base_sooner"]) == (5, 5)


def test_without_relapse_there_is_nothing(make: Make) -> None:
    assert relapse_over_worlds([make("base", "base", model=name, hrr="RRRR") for name in WORLDS]).empty
