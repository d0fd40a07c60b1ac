"""`doctor` finds what is there, and names the command for what is not; its exit code says whether runs can be."""

from importlib.metadata import version

import pytest
from rich.console import Console
from safebasin.harness.commands import doctor
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.doctor import Finding, examine, table


def named(what: str) -> Finding:
    (found,) = (finding for finding in examine() if finding.what == what)
    return found


def test_versions_and_the_machine_are_told() -> None:
    found = {finding.what: finding for finding in examine()}
    assert version("torch") in found["packages"].found
    assert {"cpu", "rounding", "memory", "cache", "hub cache"} <= set(found)
    assert all(finding.mend for finding in found.values() if finding.state != "ok")


def test_an_optional_part_that_is_missing_has_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "vllm_problem", lambda device: "it is not there. Install safebasin[vllm]")
    monkeypatch.setenv("HF_HUB_CACHE", "nowhere")
    assert named("vllm") == Finding(
        "vllm", "not installed: runs use transformers", "missing", "Install safebasin[vllm]."
    )
    missing = doctor._module("no_such_package", "reads nothing", "pip install it")
    assert (missing.state, missing.mend) == ("missing", "pip install it")
    assert doctor._module("torch", "computes", "").state == "ok"


def test_a_cache_that_cannot_be_written_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    monkeypatch.setenv("SAFEBASIN_CACHE", f"{tmp_path}/cache")
    assert named("cache").state == "ok"
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "SAFEBASIN_CACHE" in named("cache").mend
    with pytest.raises(SystemExit) as stop:
        main(["doctor"])
    assert stop.value.code == 1
    assert "broken" in capsys.readouterr().out


def test_brackets_in_a_command_are_shown() -> None:
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(table([Finding("vllm", "none", "missing", "pip install safebasin[vllm]")]))
    assert "safebasin[vllm]" in shown.get()


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"safebasin {version('safebasin')}\n"
