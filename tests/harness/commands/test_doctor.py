"""`doctor` finds what is there, and names the command for what is not; its exit code says whether runs can be."""

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safebasin.harness.commands import doctor
from safebasin.harness.commands.cli import main
from safebasin.harness.commands.doctor import Finding, examine, examine_model, table
from safetensors.torch import load_file, save_file


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


def test_a_model_is_looked_at_instead(tiny_chat_model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--model", str(tiny_chat_model())], 0), (["--model", "sandbx/none"], 2)):
        with pytest.raises(SystemExit) as stop:
            main(["doctor", *arguments])
        assert stop.value.code == code
    assert "none missing, none left over, all finite" in " ".join(capsys.readouterr().out.split())


def test_what_a_run_would_refuse_is_broken(tiny_chat_model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_chat_model(), folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    save_file(tensors, weights, {"format": "pt"})
    states = {finding.what: finding for finding in examine_model(str(folder), None)}
    assert states["weights"].state == "broken"
    assert "q_proj" in states["weights"].found


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"safebasin {version('safebasin')}\n"
