"""Published numbers find their places, and lie inside an interval or not, as they were rounded."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from safebasin.errors import InputError
from safebasin.results.audit import Number, published, table_path
from safebasin.results.beside import BESIDE, Places, beside
from safebasin.results.beside_view import HEADERS, NOTE, SHOWN, counts, lines, render
from safebasin.results.export import write_table
from safebasin.results.leaderboard import MethodResult, leaderboard
from safebasin.results.statistics import wilson

Make = Callable[..., MethodResult]
PLACES = Places({"llama": "sandbox"}, {"LoRA": "lora", "Ours": "curvature"}, {"HRR": "hrr", "ARC": "arc"})


def number(value: str, column: str = "HRR", row: str = "LoRA", group: str = "llama", unit: str = "percent") -> Number:
    return Number("t", group, row, column, Decimal(value), unit)


def one(frame: pd.DataFrame, value: str, *column: str, unit: str = "percent", n: int = 0) -> Mapping[str, Any]:
    """The only line of a number beside the row `lora`."""
    name = column[0] if column else "hrr"
    places = Places({"llama": "sandbox"}, {"LoRA": "lora"}, {"it": name})
    documents = {("sandbox", "lora", 0): {name: n}} if n else None
    found = beside([number(value, "it", unit=unit)], places, frame, documents)
    assert list(found.columns) == [*BESIDE]
    (row,) = found.astype(object).where(found.notna(), None).to_dict("records")
    return row


def test_a_rate_stands_beside_its_own_with_the_leaderboards_interval(make: Make) -> None:
    frame = leaderboard([make("lora", "fine-tuning", hrr="H" * 3 + "R" * 7)])
    row = one(frame, "25.5", unit="percent_prompts")
    assert (row["published"], row["rounding"], row["unit"]) == (25.5, 0.05, "percent_prompts")
    assert (row["model"], row["method"], row["seed"], row["measured_as"]) == ("sandbox", "lora", 0, "hrr")
    assert row["measured"] == pytest.approx(30)
    assert (row["measured_low"], row["measured_high"]) == pytest.approx([100 * end for end in wilson(3, 10)])
    assert row["difference"] == pytest.approx(4.5)
    assert row["inside"] == "yes"


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        *(("19.9", "no"), ("20.0", "yes"), ("30.0", "yes"), ("30.1", "no")),
        *(("19.95", "no"), ("19.96", "yes"), ("30.03", "yes"), ("30.04", "no")),
        *(("19", "no"), ("20", "yes"), ("30", "yes"), ("31", "no"), ("19.5", "no")),
    ],
)
def test_what_a_value_may_have_been_before_rounding_decides(make: Make, value: str, inside: str) -> None:
    frame = leaderboard([make("lora", "fine-tuning", hrr="HHRR")])
    frame.loc[0, ["hrr", "hrr_low", "hrr_high"]] = [25.0, 19.96, 30.03]
    assert one(frame, value)["inside"] == inside


def test_ends_that_touch_touch(make: Make) -> None:
    tenths = [Decimal(k) / 10 for k in range(1, 1000)]
    frame = pd.concat([leaderboard([make("lora", "fine-tuning", hrr="HHRR")])] * len(tenths), ignore_index=True)
    frame["method"] = frame["method"] + frame.index.astype(str)
    frame["hrr_low"] = [float(value + Decimal("0.05")) for value in tenths]  # seldom what a sum of floats gives
    frame["hrr_high"] = 100.0
    places = Places({"llama": "sandbox"}, {name: name for name in frame["method"]}, {"HRR": "hrr"})
    numbers = [number(f"{value:.1f}", row=name) for value, name in zip(tenths, frame["method"], strict=True)]
    assert set(beside(numbers, places, frame)["inside"]) == {"yes"}


@pytest.mark.parametrize(("unit", "factor"), [("minutes", 1), ("hours", 60), ("seconds", 1 / 60)])
def test_times_become_minutes(make: Make, unit: str, factor: float) -> None:
    row = one(leaderboard([make("lora", "fine-tuning", minutes=20.0)]), "18.5", "minutes", unit=unit)
    assert (row["unit"], row["published"]) == ("minutes", pytest.approx(18.5 * factor))
    assert row["rounding"] == pytest.approx(0.05 * factor)
    assert (row["measured"], row["measured_low"], row["inside"]) == (20.0, None, "")
    assert row["difference"] == pytest.approx(20 - 18.5 * factor)


@pytest.mark.parametrize("k", [0, 13, 20])
def test_a_share_of_documents_has_wilsons_interval(make: Make, k: int) -> None:
    frame = leaderboard([make("lora", "fine-tuning", metrics={"arc": 100 * k / 20})])
    row = one(frame, "66.0", "arc", n=20)
    low, high = wilson(k, 20)
    assert (row["measured_low"], row["measured_high"]) == pytest.approx((100 * low, 100 * high))
    assert row["inside"] == ("yes" if k == 13 else "no")
    without = one(frame, "66.0", "arc")
    assert (without["measured_low"], without["inside"]) == (None, "")
    assert without["measured"] == row["measured"]


def test_tasks_that_are_called_like_ends_of_an_interval_are_none(make: Make) -> None:
    metrics = {"arc": 50.0, "arc_low": 1.0, "arc_high": 99.0}
    frame = leaderboard([make("lora", "fine-tuning", metrics=metrics)])
    assert one(frame, "66.0", "arc")["inside"] == ""


def test_every_seed_has_its_line(make: Make) -> None:
    frame = leaderboard([make("lora", "fine-tuning", seed=seed, hrr="H" * seed + "R" * 9) for seed in (0, 1, 5)])
    found = beside([number("25.5")], PLACES, frame)
    assert [*found["seed"]] == [0, 1, 5]
    assert [*found["measured"]] == pytest.approx([0, 10, 100 * 5 / 14])
    assert [*found["inside"]] == ["yes", "yes", "yes"]
    assert set(found["published"]) == {25.5}


def test_failed_rows_and_what_was_not_measured_are_empty(make: Make) -> None:
    results = [
        make("lora", "fine-tuning", hrr="HR", metrics={"arc": 50.0}, status="failed: no memory"),
        make("curvature", hrr="HR"),
    ]
    numbers = [number("25.5"), number("50.0", "ARC"), number("50.0", "ARC", "Ours")]
    found = beside(numbers, PLACES, leaderboard(results))
    assert len(found) == 3
    assert found[["measured", "measured_low", "measured_high", "difference"]].isna().all().all()
    assert set(found["inside"]) == {""}
    absent = beside(numbers, PLACES, leaderboard([make("base", "base", hrr="HR")]))
    assert [*absent["method"]] == ["lora", "lora", "curvature"]
    assert absent["seed"].isna().all()
    assert [cells[3:] for cells in lines(absent)] == [("-", "-", "-")] * 3


def test_lines_stand_by_column_then_as_printed_and_numbers_without_a_place_are_left_out(make: Make) -> None:
    numbers = [
        number("1.0", "ARC"), number("2.0"), number("3.0", "GSM8K"), number("4.0", row="Vaccine"),
        number("5.0", group="qwen"), number("6.0", row="Ours"), number("7.0", "ARC", "Ours"),
    ]  # fmt: skip
    found = beside(numbers, PLACES, leaderboard([make("lora", "fine-tuning", hrr="HR")]))
    assert [*found["published"]] == [2, 6, 1, 7]


def test_a_row_of_one_group_goes_before_the_row_of_all() -> None:
    places = Places({"epsilon": "m", "delta": "m"}, {"0.1": "any", "delta/0.1": "delta 0.1"}, {"HRR": "hrr"})
    assert places.key(number("1", row="0.1", group="epsilon")) == "0.1"
    assert places.key(number("1", row="0.1", group="delta")) == "delta/0.1"
    assert places.key(number("1", row="0.2", group="delta")) is None
    assert places.key(number("1", row="0.1", group="other")) is None
    assert places.key(number("1", row="0.1", group="delta", column="ARC")) is None


def test_the_file_is_inert_and_says_how_values_were_rounded(make: Make, tmp_path: Path) -> None:
    places = Places({"=1+1": "sandbox"}, {"LoRA": "lora"}, {"HRR": "hrr"})
    found = beside([number("3.0", group="=1+1")], places, leaderboard([make("lora", "fine-tuning", hrr="HR")]))
    write_table(found, tmp_path / "published.csv")
    header, line = (tmp_path / "published.csv").read_text().splitlines()
    assert header == ",".join(BESIDE)
    assert line.startswith("t,'=1+1,LoRA,HRR,percent,3,0.05,sandbox,lora,0,hrr,50,")
    assert line.endswith(",47,no")


def shown(frame: pd.DataFrame, width: int = 140) -> str:
    console = Console(width=width, file=StringIO())
    render(frame, console)
    return console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO


def test_published_and_measured_stand_in_columns_of_their_own(make: Make) -> None:
    results = [make("lora", "fine-tuning", hrr="H" * 3 + "R" * 7, metrics={"arc": 50.0})]
    found = beside([number("3.0", unit="percent_prompts"), number("1.10", "ARC", unit="nats")], PLACES,
                   leaderboard(results))  # fmt: skip
    low, high = (100 * end for end in wilson(3, 10))
    hrr = f"30.0 [{low:.1f}, {high:.1f}]"
    assert lines(found) == [
        ("t: llama / LoRA / HRR", "3.0 %", "sandbox / lora, seed 0: hrr", hrr, "+27.00", "no"),
        ("t: llama / LoRA / ARC", "1.10 nats", "sandbox / lora, seed 0: arc", "50.00", "+48.90", "-"),
    ]  # fmt: skip
    text = shown(found)
    assert all(header in text for header in HEADERS)
    assert "Inside the interval: 0 of 1; beside these 1 without an interval." in text
    assert " ".join(NOTE.split()) in " ".join(text.split())


@pytest.mark.parametrize(("value", "text"), [("3", "3 %"), ("399", "399 %"), ("0.85", "0.85 %"), ("1E+2", "100 %")])
def test_values_keep_the_decimals_that_were_printed(make: Make, value: str, text: str) -> None:
    frame = leaderboard([make("lora", "fine-tuning", hrr="HR")])
    assert lines(beside([number(value)], PLACES, frame))[0][1] == text


def test_names_with_brackets_are_text(make: Make) -> None:
    places = Places({"[red]llama[/red]": "sandbox"}, {"[/]": "lora"}, {"HRR": "hrr"})
    found = beside([number("3.0", row="[/]", group="[red]llama[/red]", unit="[b]%\n")], places,
                   leaderboard([make("lora", "fine-tuning", hrr="HR")]))  # fmt: skip
    text = shown(found)
    assert "t: [red]llama[/red] / [/] / HRR" in text
    assert "3.0 [b]%" in text


def test_a_long_table_is_cut_in_the_terminal_and_says_so(make: Make) -> None:
    frame = leaderboard([make("lora", "fine-tuning", seed=seed, hrr="HR") for seed in range(SHOWN + 2)])
    text = shown(beside([number("3.0")], PLACES, frame))
    assert f"seed {SHOWN - 1}:" in text
    assert f"seed {SHOWN}:" not in text
    assert "2 more lines are in published.csv and in report.html." in text
    assert shown(beside([number("3.0")], PLACES, frame[:SHOWN])).count("more lines") == 0


def test_counts_say_what_cannot_be_told(make: Make) -> None:
    results = [make("lora", "fine-tuning", hrr="HR", metrics={"arc": 50.0}), make("curvature", hrr="RR")]
    numbers = [number("50.0"), number("70.0", row="Ours"), number("50.0", "ARC"), number("50.0", "ARC", "Ours")]
    found = beside(numbers, PLACES, leaderboard(results))
    inside = "Inside the interval: 1 of 2"
    assert counts(found) == f"{inside}; beside these 1 without an interval and 1 with nothing measured."
    assert counts(found[:2]) == f"{inside}."


def test_tables_are_found_by_name_or_as_files(tmp_path: Path) -> None:
    assert {table_path(path.stem) for path in published()} == set(published())
    own = tmp_path / "mine.csv"
    own.touch()
    assert table_path(str(own)) == own
    with pytest.raises(InputError, match=r"no table 'tabel2' ships, and there is no such file\. Did you mean 'table2'"):
        table_path("tabel2")
