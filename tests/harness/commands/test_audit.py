"""`safebasin audit` prints what its page shows, and reads the page's example."""

import re
from pathlib import Path

import pytest
from safebasin.harness.commands.cli import main

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *arguments])
    out = capsys.readouterr()
    assert ended.value.code == 0, out.err
    return out.out


def test_the_page_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```\n\$ safebasin audit\n(.*?)```", PAGE, re.DOTALL)
    shown = {line.strip() for line in printed(capsys).splitlines()}
    assert [line for line in block.splitlines() if line.strip() not in shown] == []


def test_the_example_on_the_page_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = re.findall(r"```\n(table,group.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "mine.csv"
    path.write_text(table)
    shown = printed(capsys, str(path), "--n", "200")
    assert "n = 200: 2 of 2 distinct rates can" in shown
    assert "mine/llama/ours/time is 18.5 minutes (at most 1113 s), its parts take at least 1244 s" in shown
    assert "0 of 1 differences have p >= 0.05" in shown
