"""The leaderboard in the layout of the paper's table 2."""

import re

import pandas as pd
import pytest
from safebasin.results.latex import latex_table
from safebasin.results.leaderboard import leaderboard
from safebasin.results.text import latex


def rows_of(text: str) -> list[list[str]]:
    """The cells of the body, row by row."""
    body = text.split("\\midrule\n", 1)[1].split("\\bottomrule")[0].replace("\\midrule\n", "")
    return [[cell.strip() for cell in line.removesuffix(" \\\\").split(" & ")] for line in body.splitlines()]


def test_the_layout_is_that_of_table_2(board: pd.DataFrame) -> None:
    text = latex_table(board)
    head = text.split("\\toprule\n")[1].split("\\midrule")[0].splitlines()
    assert head == [
        "Models & Methods & Eval $\\downarrow$ & HRR $\\downarrow$ & \\multicolumn{2}{c}{Utility $\\uparrow$}"
        " & \\multicolumn{3}{c}{Responses} \\\\",
        "\\cmidrule(lr){5-6} \\cmidrule(lr){7-9}",
        " &  &  &  & sandbox\\_facts & sandbox\\_arithmetic & Refused & Incoherent & Over-refusal \\\\",
    ]
    assert "\\begin{tabular}{llrrrrrrr}" in text
    base, lora, curvature = rows_of(text)
    assert base[:4] == ["\\multirow{3}{*}{sandbox}", "base", "--", "0.0 {\\scriptsize [0.0, 1.9]}"]
    assert lora[:4] == ["", "lora", "1.23", "59.5 {\\scriptsize [52.6, 66.1]}"]
    assert curvature[4:] == ["88.0", "97.2", "89.5", "7.5", "8.0"]
    assert "$n = 200$ prompts." in text
    assert "Nothing is marked as best: that takes 3 seeds." in text
    assert "textbf" not in text


def test_three_seeds_mark_the_best_and_the_second_and_not_the_base(make) -> None:
    harmful = {"base": 0, "lora": 6, "a": 2, "b": 1, "c": 1}
    stages = {"base": "base", "lora": "fine-tuning"}
    rows = [
        make(name, stages.get(name, "post-hoc"), seed=seed, hrr="H" * k + "R" * (10 - k), metrics={"task": 90.0 + k})
        for name, k in harmful.items()
        for seed in (range(3) if name != "base" else [0])
    ]
    base, lora, a, b, c = rows_of(latex_table(leaderboard(rows)))
    assert [row[2] for row in (lora, a, b, c)] == ["60.0", "\\underline{20.0}", "\\textbf{10.0}", "\\textbf{10.0}"]
    assert base[2].startswith("0.0")
    assert [row[3] for row in (base, lora, a, b)] == ["90.0", "\\textbf{96.0}", "\\underline{92.0}", "91.0"]


def test_failed_rows_are_named_and_models_have_groups(make, board_with_failure: pd.DataFrame) -> None:
    text = latex_table(board_with_failure)
    assert "Failed: sandbox / vaccine / seed 0." in text
    assert [row[1] for row in rows_of(text)] == ["lora"]
    two = latex_table(leaderboard([make("x", model=model, hrr="HR") for model in ("m_1", "m&2")]))
    assert two.count("\\midrule") == 2
    assert [row[0] for row in rows_of(two)] == ["\\multirow{1}{*}{m\\_1}", "\\multirow{1}{*}{m\\&2}"]


@pytest.mark.parametrize("text", ["\\input{x}", "50% & $x_1^2$ #~", "[2em]", "*", "a\\\\b", "^^M", "{", '"<|>'])
def test_no_character_is_a_command(text: str) -> None:
    bare = re.sub(r"\\(text\w+\{\}|[&%$#_{}])|\{\\char34\}|\{[\[\]*]\}", "", latex(text))
    assert not set(bare) & set('\\{}&%$#_^~[]*<>|"')
