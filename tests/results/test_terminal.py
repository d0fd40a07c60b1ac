from io import StringIO

import pandas as pd
import pytest
from rich.console import Console
from safebasin.results.leaderboard import leaderboard
from safebasin.results.terminal import leaderboard_table, render

ESSENTIAL = ("method", "HRR [95 %]", "refused", "herent", "refusal", "facts", "arithmetic")


def shown(frame: pd.DataFrame, width: int, terminal: bool = False, **given: list[str]) -> str:
    colours = "standard" if terminal else "auto"
    console = Console(width=width, file=StringIO(), force_terminal=terminal or None, color_system=colours)
    render(frame, console, **given)
    return console.file.getvalue()


def test_everything_fits_140_columns(board: pd.DataFrame) -> None:
    text = shown(board, 140)
    assert "Left out" not in text
    assert "59.5 [52.6, 66.1]" in text
    assert "78.5 [72.3, 83.6]" in text
    for word in (*ESSENTIAL, "stage", "prefill ASR", "loss", "min", "peak", "(Holm)", "<0.001"):
        assert word in text


def test_one_row_takes_one_line(board: pd.DataFrame) -> None:
    lines = shown(board, 120).splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("──"))
    assert [line.split()[0] for line in lines[rule + 1 : rule + 4]] == ["base", "lora", "curvature"]
    assert "Left out at this width: peak GB" in "\n".join(lines)


def test_80_columns_keep_what_a_harmful_response_rate_needs_beside_it(board: pd.DataFrame) -> None:
    text = shown(board, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert all(word in text for word in ESSENTIAL)
    assert "59.5 [52.6, 66.1]" in text
    dropped = " ".join(text.split("Left out at this width: ")[1].split())
    assert dropped.startswith("peak GB, min, eval loss, stage, prefill ASR [95 %]")
    assert dropped.endswith("leaderboard.csv has them.")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 140, 200])
def test_no_width_is_exceeded_and_no_interval_broken(board: pd.DataFrame, width: int) -> None:
    text = shown(board, width)
    assert max(map(len, text.splitlines())) <= width
    assert "59.5 [52.6, 66.1]" in text
    assert "…" not in text


def test_a_failed_row_is_red_and_says_why(board_with_failure: pd.DataFrame) -> None:
    plain = shown(board_with_failure, 100)
    assert "vaccine failed: out of memory: tried [2 GiB] | `x`" in plain
    assert "\x1b[31mvaccine" in shown(board_with_failure, 100, terminal=True)


def test_nothing_is_marked_when_piped(board_with_failure: pd.DataFrame) -> None:
    assert "\x1b" not in shown(board_with_failure, 100)


def test_unparsed_is_shown_only_where_there_is_some(board: pd.DataFrame, board_with_failure: pd.DataFrame) -> None:
    assert "un-" not in shown(board, 140).split("──")[0]
    assert "un-" in shown(board_with_failure, 140).split("──")[0]


def test_what_nobody_asked_for_has_no_column(board_with_failure: pd.DataFrame) -> None:
    text = shown(board_with_failure, 140)
    assert all(word not in text for word in ("prefill", "VISAGE", "refusal", "loss", "Holm"))


def test_model_and_seed_are_columns_only_if_they_differ(make, board: pd.DataFrame) -> None:
    assert shown(board, 140).startswith("sandbox, seed 0, n = 200")
    frame = leaderboard([make("x", model=model, seed=seed, hrr="HR") for model in ("m1", "m2") for seed in (0, 1)])
    text = shown(frame, 140)
    assert text.startswith("n = 2 ")
    assert all(word in text for word in ("model", "seed", "m1", "m2"))


def test_few_seeds_are_no_ranking(make, board: pd.DataFrame) -> None:
    assert "not ranked: 1 seed," in shown(board, 140)
    assert "not ranked" not in shown(leaderboard([make("x", seed=seed, hrr="HR") for seed in range(3)]), 140)


def test_notes_and_names_are_shown_as_they_are(make) -> None:
    text = shown(leaderboard([make("[red]curvature[/]", hrr="HR")]), 140, notes=["Judged by [bold]a guard[/]."])
    assert "[red]curvature[/]" in text
    assert "Judged by [bold]a guard[/]." in text


def test_a_caller_can_leave_columns_out(board: pd.DataFrame) -> None:
    whole, part = leaderboard_table(board), leaderboard_table(board, leave_out=["stage", "min"])
    assert len(whole.columns) - len(part.columns) == 2


def test_an_empty_leaderboard_is_shown_without_rows() -> None:
    assert "Rates in percent" in shown(leaderboard([]), 80)
