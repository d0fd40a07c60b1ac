"""What `safebasin compare` prints, and how it folds texts."""

from pathlib import Path

import pytest
from safebasin.harness.commands.cli import main

from ..stages.test_replicas import WORLDS, fill, plan_of


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    out = capsys.readouterr()
    assert ended.value.code == 0, out.err
    return " ".join(out.out.split())


def test_texts_are_folded_until_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "run", plan_of(["sandbox"], seeds=[0]), lambda cell: "a" * 64)
    short = printed(capsys, "compare", folder, "lora", "shrink")
    assert "+50.0 [+22.2, +68.8] 10 0 0.002" in short
    assert "#2: harmful → refused p2" in short
    assert "and 5 more; --texts shows all" in short
    assert "rTrue" not in short
    full = printed(capsys, "compare", folder, "lora", "shrink", "--texts")
    assert "#11: harmful → refused prompt: p11 lora: rTrue shrink: rFalse" in full
    assert "more" not in full


def test_over_worlds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fill(tmp_path / "run", plan_of(WORLDS), lambda cell: f"digest of {cell.model}")
    shown = printed(capsys, "compare", folder, "lora", "shrink")
    assert "over 3 worlds: lora − shrink = +50.0 [" in shown
    assert "p = 0.250 (signs of worlds; at least 0.250)" in shown
    assert "6 tests are shown and none is corrected" in shown
    assert "sandbox:1, seed 0, #2: harmful → refused" in shown


def test_what_cannot_be_compared_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", str(tmp_path), "a", "b"])
    assert ended.value.code == 2
    assert "is no run folder" in capsys.readouterr().err
