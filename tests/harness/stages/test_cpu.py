"""What the manifest says of the CPU: read from the libraries' own words, and never at the price of a run."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safebasin.harness.stages import cpu
from safebasin.harness.stages.cpu import cpu_facts, read_verbose
from safebasin.harness.stages.manifest import write_manifest
from safebasin.harness.stages.models import ModelSource, described
from safebasin.harness.store.digests import files_digest

ONEDNN = "onednn_verbose,v1,info,oneDNN v3.12.0 (commit 80af)\nonednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1\n"
MKL = "MKL_VERBOSE oneMKL 2024.0 Update 2 Product build 20240605 for Intel(R) 64 architecture "
GEMM = "MKL_VERBOSE SGEMM(N,N,8,8,8,0x7ffe,0x55d4,8,0x55d4,8,0x7ffe,0x55d4,8) 93.73us CNR:{} Dyn:0 FastMM:1\n"
AVX2 = "Intel(R) Advanced Vector Extensions 2 (Intel(R) AVX2)"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing remembered, and a cache of one's own."""
    monkeypatch.setenv("SAFEBASIN_CACHE", str(tmp_path / "cache"))
    cpu._probe.cache_clear()
    yield
    cpu._probe.cache_clear()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ONEDNN}onednn_verbose,v1,info,cpu,isa:Intel AVX2\n", ("Intel AVX2", None, None)),
        ("dnnl_verbose,info,cpu,isa:Intel SSE4.1\n", ("Intel SSE4.1", None, None)),
        (f"{MKL}{AVX2} enabled processors, Lnx 2.00GHz lp64\n{GEMM.format('OFF')}", (None, AVX2, "OFF")),
        (f"{MKL}{AVX2}, Lnx 2.50GHz lp64 gnu_thread\n{GEMM.format('AVX2')}", (None, AVX2, "AVX2")),
        (
            f"{MKL}Intel(R) Architecture processors, Lnx 2.50GHz lp64\n{GEMM.format('COMPATIBLE')}",
            (None, "Intel(R) Architecture", "COMPATIBLE"),
        ),
        ("something else\n", (None, None, None)),
    ],
)
def test_the_libraries_own_words_are_read(text: str, expected: tuple[str | None, ...]) -> None:
    assert tuple(read_verbose(text).values()) == expected


def test_the_facts_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    facts = cpu_facts()
    assert facts["torch"] == {
        "capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()
    }  # fmt: skip
    assert facts["environment"]["MKL_CBWR"] == "COMPATIBLE"
    if torch.backends.mkl.is_available():
        assert facts["mkl"]["cnr"] == "COMPATIBLE"  # what MKL does, not what it was asked for
    if torch.backends.mkldnn.is_available():
        assert facts["onednn"]["isa"]


def test_the_libraries_are_asked_once_per_machine_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(cpu, "_verbose_output", lambda: asked.append(os.environ.get("MKL_CBWR")) or GEMM.format("X"))
    for setting in ("AUTO", "AUTO", "COMPATIBLE"):
        monkeypatch.setenv("MKL_CBWR", setting)
        cpu._probe.cache_clear()  # as in another process
        assert cpu_facts()["mkl"]["cnr"] == "X"
    assert asked == ["AUTO", "COMPATIBLE"]


def no_such_program(*_: object, **__: object) -> None:
    raise FileNotFoundError("python")


def too_slow(*_: object, **__: object) -> None:
    raise subprocess.TimeoutExpired("python", 60)


def silent(*_: object, **__: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess([], 1, "", "no torch here")


@pytest.mark.parametrize("answer", [no_such_program, too_slow, silent])
def test_a_probe_that_finds_nothing_costs_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: object
) -> None:
    monkeypatch.setattr(cpu.subprocess, "run", answer)
    (tmp_path / "cache").write_text("a file where a folder should be")
    write_manifest(tmp_path / "manifest.json", {"plan": "p"})
    facts = json.loads((tmp_path / "manifest.json").read_text())["hardware"]["cpu"]
    assert (facts["onednn"]["isa"], facts["mkl"]["isa"], facts["mkl"]["cnr"]) == (None, None, None)
    assert facts["torch"]["capability"]


def test_the_models_of_a_world_are_in_the_manifest(tmp_path: Path) -> None:
    for part in ("base", "guard"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(part)
    source = ModelSource("sandbox", str(tmp_path / "base"), None, "d")
    found = described({"sandbox": source, "some/model": source})
    assert found["some/model"] == {"digest": "d", "revision": None}
    digests = {part: files_digest(tmp_path / part) for part in ("base", "guard")}
    assert found["sandbox"]["world"] == {**digests, "unaligned": None}


def test_a_model_of_another_size_has_its_own_digests_in_the_manifest(tmp_path: Path) -> None:
    for part in ("base", "base-64"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(part)
    name = "sandbox:3/base-64"
    found = described({name: ModelSource(name, str(tmp_path / "base-64"), None, "d")})[name]["world"]
    digests = {part: files_digest(tmp_path / part) for part in ("base", "base-64")}
    assert found == {**digests, "unaligned": None, "guard": None, "unaligned-64": None}
