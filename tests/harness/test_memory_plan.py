"""What a run says of memory before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.harness import memory
from safebasin.harness.config_model import RunConfig
from safebasin.harness.memory import memory_plan, weight_bytes
from safebasin.harness.models import ModelSource
from safetensors.torch import save_file

ENTRIES = 3 * 5 + 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(3, 5, dtype=torch.bfloat16)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(7, dtype=torch.bfloat16)}, tmp_path / "model-2.safetensors")
    return tmp_path


def config(**changes: Any) -> RunConfig:
    given = {"name": "t", "models": ["m"], "methods": ["base"], "tasks": {}, "device": "cpu", **changes}
    return RunConfig.model_validate_json(json.dumps(given))


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2), ("float16", 2)])
def test_weights_count_in_the_type_that_they_are_loaded_in(folder: Path, dtype: str, width: int) -> None:
    assert weight_bytes(folder, dtype) == ENTRIES * width


def test_kept_types_take_what_the_files_take(folder: Path) -> None:
    assert weight_bytes(folder, "auto") == sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def test_what_does_not_fit_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = config(
        judges=[{"llama_guard": {"model": str(folder)}}, {"llama_guard": {"model": "not/here"}}, "keywords"]
    )
    models = {"m": ModelSource("m", str(folder), None, "")}
    monkeypatch.setattr(memory, "GB", 1.0)
    (line,) = memory_plan(models, judged)
    assert f"target m {ENTRIES * 4:.2f} GB, judge llama_guard " in line
    assert line.count("judge") == 1
    monkeypatch.setattr(memory, "_device", lambda config: ("cpu", ENTRIES * 4 - 1))
    assert "target m alone do not fit" in memory_plan(models, config())[1]
    assert len(memory_plan(models, config(dtype="bfloat16"))) == 1
