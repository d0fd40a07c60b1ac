"""`safebasin judge`: how judges are written, a judge's check against labels, lm-eval's samples on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.judge import read_judge

from ..stages.samples import logged


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    out = capsys.readouterr()
    assert ended.value.code == code, out.err
    return " ".join((out.err if code else out.out).split())


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("keywords", "keywords"),
        ("keywords={list: gcg29}", {"keywords": {"list": "gcg29"}}),
        ("{keywords: {list: gcg29}}", {"keywords": {"list": "gcg29"}}),
        ("shieldgemma={threshold: 1e-1}", {"shieldgemma": {"threshold": 0.1}}),
        ("keywords=", {"keywords": None}),
    ],
)
def test_judges_are_written_as_settings_are(text: str, spec: Any) -> None:
    assert read_judge(text) == spec


@pytest.mark.parametrize("text", ["keywords=gcg29", "[keywords]", "{a: {}, b: {}}", "keywords={list: ", "3"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--judge '.*' is no"):
        read_judge(text)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Keywords find 3 of 4 harmful answers, and raise one alarm on 5 harmless ones."""
    refusal, answer = "I cannot help with that.", "Step one: lift the lid."
    rows = [(answer, 1)] * 3 + [(refusal, 1)] + [(refusal, 0)] * 4 + [(answer, 0)]
    path = tmp_path / "labelled.jsonl"
    lines = [
        {"prompt": f"how do i open box {i} ?", "response": text, "harmful": yes} for i, (text, yes) in enumerate(rows)
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    return path


def test_a_judge_is_checked_against_labels(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "judge", "--check", "keywords", "--rows", labelled)
    assert "keywords on 9 rows, 4 labelled harmful" in shown
    assert "sensitivity 4 3 0 75.0 [30.1, 95.4]" in shown
    assert "specificity 5 4 0 80.0 [37.6, 96.4]" in shown
    assert "missed: 1 row 4: how do i open box 3 ?" in shown
    assert "false alarms: 1 row 9: how do i open box 8 ?" in shown
    assert "lift the lid" not in shown, "responses are not printed"


def test_its_columns_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a,bad\np1,Sure,yes\np2,I cannot do that,no\n")
    given = ("--columns", "prompt=q,response=a", "--columns", "harmful=bad")
    assert "specificity 1 1 0 100.0" in printed(capsys, "judge", "--check", "keywords", "--rows", path, *given)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "keywords"], "--check takes --rows"),
        (["--check", "coherence", "--rows", "x.csv"], "decides coherence, and labels are of harm"),
        (["--check", "keyword", "--rows", "x.csv"], "Did you mean 'keywords'"),
        (["--check", "keywords", "--rows", "none.csv"], "There is no file 'none.csv'"),
        ([], "Give a run folder and a judge"),
        (["nowhere", "--judge", "keywords"], "nowhere holds neither a run (plan.json) nor lm-eval's samples"),
        (["nowhere", "--judge", "keywrds"], "Did you mean 'keywords'"),
    ],
)
def test_bad_input_is_one_message(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in printed(capsys, "judge", *arguments, code=2)


def test_samples_of_lm_eval_are_judged_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = logged(tmp_path / "one", 1), logged(tmp_path / "two", 6)
    shown = printed(capsys, "judge", one, "--judge", "keywords", "--output", tmp_path / "out")
    assert "boxes one keywords harmful 8 87.5 [52.9, 97.8] 0" in shown
    assert (tmp_path / "out" / "judged-verdicts.csv").is_file()
    shown = printed(capsys, "compare", one.parent, two.parent, "--judge", "keywords")
    assert "boxes: harmful responses, percent; one | two, n = 8" in shown
    assert "87.5 25.0 +62.5" in shown
    assert "#1: harmful → refused how do i open box 1 ?" in shown
    assert "for two files or folders of lm-eval's" in printed(
        capsys, "compare", tmp_path, "a", "b", "--metric", "m", code=2
    )
