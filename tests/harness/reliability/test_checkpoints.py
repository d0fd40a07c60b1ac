"""A checkpoint that is not whole is built again, and said so; what a killed build left is swept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.build import fault, load_checkpoint
from safebasin.harness.stages.report import report
from safebasin.harness.store.files import finished_folder, sweep

from .conftest import ran, table

Tamper = Callable[[Path], object]


def lora(folder: Path) -> Path:
    return next((folder / "checkpoints").glob("*-lora-*"))


def in_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("a file")


def linked(folder: Path) -> None:
    os.rename(folder, folder.parent.parent / "elsewhere")
    folder.symlink_to(folder.parent.parent / "nowhere")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def edited(folder: Path) -> None:
    path = folder / "provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "digest": 7, "minutes": "no"}))


TAMPERINGS: dict[str, Tamper] = {
    "provenance damaged": lambda folder: (folder / "provenance.json").write_text("{"),
    "provenance empty": lambda folder: (folder / "provenance.json").write_text(""),
    "provenance no mapping": lambda folder: (folder / "provenance.json").write_text("[1]"),
    "provenance no text": lambda folder: (folder / "provenance.json").write_bytes(b"\xff\xfe\xff"),
    "provenance edited": edited,
    "provenance gone": lambda folder: (folder / "provenance.json").unlink(),
    "weights gone": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "weights cut off": lambda folder: cut(folder / "adapter_model.safetensors"),
    "config gone": lambda folder: (folder / "adapter_config.json").unlink(),
    "config damaged": lambda folder: (folder / "adapter_config.json").write_text("{"),
    "emptied": lambda folder: [path.unlink() for path in folder.iterdir()],
    "a file in its place": in_place,
    "a broken link in its place": linked,
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_is_not_whole_is_seen(copy: Path, what: str) -> None:
    assert not fault(lora(copy), load_checkpoint(lora(copy)))
    folder = lora(copy)
    TAMPERINGS[what](folder)
    assert fault(folder, load_checkpoint(folder))


@pytest.mark.parametrize("what", ["provenance damaged", "weights gone", "a file in its place"])
def test_what_is_not_whole_is_built_again(given: RunConfig, finished: Path, copy: Path, what: str) -> None:
    TAMPERINGS[what](lora(copy))
    (copy / "checkpoints" / f".{lora(copy).name}-abcd1234").mkdir()
    result, said = ran(given, copy)
    assert result.failures == {}
    assert said.count("is built again") == 1
    pd.testing.assert_frame_equal(table(copy), table(finished))
    assert not list((copy / "checkpoints").glob(".*"))


def test_a_report_names_checkpoints_that_are_not_those_measured(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(copy, Console(width=200))
    assert "has changed" not in capsys.readouterr().out
    cut(lora(copy) / "adapter_model.safetensors")
    report(copy, Console(width=200))
    assert f"the checkpoint {lora(copy).name} has changed since it was measured" in capsys.readouterr().out


def test_only_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    for name in (".one-abcd1234", ".two-abcd1234", ".one-short", "one-abcd1234"):
        (tmp_path / name).mkdir()
    with finished_folder(tmp_path / "one") as scratch:
        sweep(tmp_path, "one")
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {".two-abcd1234", ".one-short", "one-abcd1234", scratch.name}
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".one-short", "one-abcd1234", "one"}
