"""Which engine a run gets, and that vLLM is not promised where it cannot be had."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safebasin import vllm_setup
from safebasin.errors import InputError
from safebasin.harness.commands.cli import main
from safebasin.harness.config.load import load_config
from safebasin.harness.engines import choice

from ..conftest import ROOT

SANDBOX = ROOT / "configs" / "sandbox.yaml"
Machine = Callable[..., None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes the machine look as if this vLLM and this GPU were there."""

    def look(vllm: str | None, cuda: bool = False) -> None:
        monkeypatch.setattr(vllm_setup, "vllm_version", lambda: vllm and "0.32.0")
        monkeypatch.setattr(vllm_setup, "vllm_device", lambda: vllm)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)

    return look


@pytest.mark.parametrize(
    ("vllm", "cuda", "device", "chosen"),
    [
        (None, False, None, "hf"),
        (None, True, None, "hf"),
        ("cpu", False, None, "hf"),
        ("cpu", True, None, "hf"),
        ("cuda", False, None, "hf"),
        ("cuda", True, None, "vllm"),
        ("cuda", True, "cuda", "vllm"),
        ("cuda", True, "cuda:1", "hf"),
        ("cuda", True, "cpu", "hf"),
    ],
)
def test_auto_is_vllm_on_cuda_where_installed(
    machine: Machine, vllm: str | None, cuda: bool, device: str | None, chosen: str
) -> None:
    machine(vllm, cuda)
    overrides = ["engine=auto"] + ([f"device={device}"] if device else [])
    assert choice.choose(load_config(SANDBOX, overrides)) == chosen


def test_vllm_without_vllm_is_one_message_before_anything_runs(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(None)
    with pytest.raises(SystemExit) as stop:
        main(["run", str(SANDBOX), "engine=vllm", "--output", str(tmp_path / "run")])
    message = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2
    assert "1 problem in" in message
    assert "engine: vllm is not installed here. Install safebasin[vllm]" in message
    assert not (tmp_path / "run").exists()


def test_a_device_that_the_installed_vllm_does_not_use(machine: Machine) -> None:
    machine("cuda", True)
    with pytest.raises(InputError, match="computes on cuda, and device is 'cpu'"):
        load_config(SANDBOX, ["engine=vllm", "device=cpu"])
    assert load_config(SANDBOX, ["engine=vllm"]).engine == "vllm"
