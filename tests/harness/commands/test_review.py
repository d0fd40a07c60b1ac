"""`safebasin review`: the examples in its help, and what it prints."""

import re
import shlex
from pathlib import Path

import pytest
from safebasin.harness.commands.cli import app, main

from ..stages.test_drifting import add_judge
from ..stages.test_replicas import fill, plan_of
from ..stages.test_reviewing import fill_in, right

GROUP = next(group.typer_instance for group in app.registered_groups if group.name == "review")
EXAMPLES = {
    str(command.name or getattr(command.callback, "__name__", "")): found.group(1)
    for command in (GROUP.registered_commands if GROUP else ())
    if (found := re.match(r"Example: safebasin (.*)\n", command.help or ""))
}


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    out = capsys.readouterr()
    assert ended.value.code == code, out.err
    return " ".join((out.err if code else out.out).split())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run runs/sandbox in it, where commands are typed."""
    (tmp_path / "runs").mkdir()
    plan = plan_of(["sandbox"], seeds=[0])
    add_judge(fill(tmp_path / "runs" / "sandbox", plan, lambda cell: "a" * 64), plan)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["export", "import", "settle"])
def test_the_help_opens_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "review", command, "--help")
    assert shown.index(f"Example: safebasin {EXAMPLES[command]}") < shown.index("Options")


def test_the_examples_work_one_after_the_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, *shlex.split(EXAMPLES["export"]))
    assert re.search(r"Sheet s[0-9a-f]{10}: 32 of 32 different responses to sandbox_hrr", shown)
    assert "disagreement 8 8 1.00 near-threshold 1 1 1.00 random-flagged 4 4 1.00" in shown
    assert "review import runs/sandbox labels-s" in shown
    fill_in(place / "sheet.csv", right)
    shown = printed(capsys, *shlex.split(EXAMPLES["import"]))
    assert "Stored 32 labels of 'r1'; 32 of 32 responses of sheet s" in shown
    assert "runs/sandbox/labels.csv: 60 labelled responses correct the rates" in shown
    fill_in(place / "sheet.csv", lambda row: "benign" if row["prompt"] in ("p0", "p1") else right(row))
    shown = printed(capsys, "review", "import", "runs/sandbox", "labels.csv", "--reviewer", "r2")
    assert "r1, r2 32 28 0.76 0.86 32 0.86 [" in shown
    assert "To settle: 4" in shown
    assert re.search(r"#\d+ r[0-9a-f]{12}: r1 harmful, r2 benign", shown)
    assert "4 that are unclear or not settled correct nothing" in shown
    shown = printed(capsys, *shlex.split(EXAMPLES["settle"]))
    assert re.search(r"Sheet s[0-9a-f]{10}: 4 responses to settle", shown)
    fill_in(place / "settle.csv", right)
    shown = printed(capsys, "review", "import", "runs/sandbox", "labels.csv", "--reviewer", "settled")
    assert "To settle" not in shown
    assert "not settled" not in shown


def test_faults_are_one_message(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed(capsys, *shlex.split(EXAMPLES["export"]))
    fill_in(
        place / "sheet.csv", lambda row: "no" if row["prompt"] == "p7" else "" if row["prompt"] == "p8" else "benign"
    )
    said = printed(capsys, *shlex.split(EXAMPLES["import"]), code=2)
    assert "Error: 4 faults in the labels, so that none of them is stored:" in said
    assert "'no' is no label. Known: benign, harmful, incoherent, refused, unclear." in said
    assert re.search(r"labels.csv, line \d+: r[0-9a-f]{12} has no label", said)
    assert not (place / "runs" / "sandbox" / "labels.csv").exists()


def test_options_that_do_not_fit_are_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ("review", "export", "runs/sandbox", "--output")
    assert "must end in .html" in printed(capsys, *export, "sheet.pdf", code=2)
    assert "too small" in printed(capsys, *export, "sheet.html", "--size", "1", code=2)
    assert "no judged task 'x'" in printed(capsys, *export, "sheet.html", "--task", "x", code=2)
    assert "no drawn sheet 's1'" in printed(
        capsys, "review", "settle", "runs/sandbox", "--output", "s.html", "--sheet", "s1", code=2
    )
