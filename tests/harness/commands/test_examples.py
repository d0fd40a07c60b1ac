"""The example that opens a command's --help works as it stands, in a folder that has what it names."""

import re
import shlex
from pathlib import Path

import pytest
from safebasin.harness.commands.cli import app, main

from ..stages.test_replicas import fill, plan_of

EXAMPLES = {
    command.name or command.callback.__name__: found.group(1)
    for command in app.registered_commands
    if command.callback and (found := re.match(r"Example: safebasin (.*)\n", command.help or ""))
}
SAID = {
    "audit": "n = 200: ", "compare": "sandbox_hrr: harmful responses", "judge": "Agreement of judges",
    "export": "runs/sandbox/leaderboard.tex", "init": "mine.yaml is written, and a run would take it",
    "power": "Prompts that tell 3 % from 8 %",
}  # fmt: skip


def test_these_commands_have_one() -> None:
    assert EXAMPLES.keys() == SAID.keys()


@pytest.mark.parametrize("command", EXAMPLES)
def test_the_help_opens_with_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.index(f"Example: safebasin {EXAMPLES[command]}") < shown.index("Options")


@pytest.mark.parametrize("command", EXAMPLES)
def test_it_works(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    plan = plan_of(["sandbox"], methods=["base", "lora", {"shrink": {"label": "curvature"}}], seeds=[0])
    fill(tmp_path / "runs" / "sandbox", plan, lambda cell: "a" * 64)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(EXAMPLES[command]))
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    assert SAID[command] in printed.out
