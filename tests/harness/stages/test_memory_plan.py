"""What a run says of memory before it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.filesize import decimal
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages import memory
from safebasin.harness.stages.memory import memory_plan, weight_bytes
from safebasin.harness.stages.models import ModelSource
from safebasin.tasks.catalog import TaskInfo
from safebasin.vllm_setup import key_value_bytes
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, FalconConfig, LlamaConfig, LlamaForCausalLM, MambaConfig

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


def model_folder(folder: Path, **sizes: Any) -> dict[str, ModelSource]:
    """A model with the weights of `folder`, and 2 x 3 layers x 2 heads x 6 numbers of keys and values per token."""
    shape = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 24}
    LlamaConfig(**shape | sizes, dtype="bfloat16").save_pretrained(folder)
    return {"m": ModelSource("m", str(folder), None, "")}


def task(new_tokens: int) -> TaskInfo:
    return TaskInfo("t", None, "utility", "", "", True, {}, new_tokens=new_tokens)


@pytest.mark.parametrize(("dtype", "width"), [("float32", 4), ("bfloat16", 2)])
def test_keys_and_values_are_what_the_model_makes(width: int, dtype: str) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=9, hidden_size=24, intermediate_size=8, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    with torch.no_grad():
        made = model(torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]]), use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in made.layers)
    assert key_value_bytes(config, width) == held / 8


def test_a_target_takes_weights_and_the_keys_and_values_of_a_batch(folder: Path) -> None:
    judged = config(
        judges=[{"llama_guard": {"model": str(folder)}}, {"llama_guard": {"model": "not/here"}}, "keywords"]
    )
    models, weights, row = model_folder(folder), ENTRIES * 4, (178 + 22) * 72 * 4
    told = memory_plan(models, judged, [task(50), task(0), task(20)], "hf")
    assert told[1] == f"  target m: weights {decimal(weights)}, keys and values {decimal(16 * row)} (16 x 178 tokens)"
    assert told[2].startswith("  judge llama_guard: weights ")
    assert len(told) == 3
    (_, line, _) = memory_plan(models, judged, [task(50), task(0)], "vllm")
    assert f"keys and values {decimal(row)} (1 x 178 tokens)" in line
    (_, line, _) = memory_plan(models, config(judges=judged.judges, max_gen_toks=7), [task(50), task(0)], "hf")
    assert "16 x 135 tokens" in line
    (_, line, _) = memory_plan(models, judged, [task(0)], "hf")
    assert "16 x 128 tokens" in line


def test_what_does_not_fit_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, weights, row = model_folder(folder), ENTRIES * 4, (178 + 22) * 72 * 4

    def told(free: int, **changes: Any) -> list[str]:
        monkeypatch.setattr(memory, "_device", lambda config: (config.device, free))
        return memory_plan(models, config(**changes), [task(50)], "hf")[2:]

    assert told(weights + 16 * row) == []
    assert "that batch does not fit[/red]: batch_size=15 may" in told(weights + 16 * row - 1)[0]
    assert "choose a smaller dtype or model" in told(weights + row - 1)[0]
    assert told(weights + row - 1, dtype="bfloat16", batch_size=1) == []
    own = {"dtype": "auto", "device": "cuda", "batch_size": 1}  # loaded in the type of the files, 16 bits
    stored = weight_bytes(folder, "auto")
    assert told(stored + row // 2, **own) == []
    assert told(stored + row // 2 - 1, **own) != []


def test_a_model_whose_cache_is_another_kind_stops_no_run(folder: Path) -> None:
    models = {"m": ModelSource("m", str(folder), None, "")}
    assert key_value_bytes(FalconConfig(), 2) == 2 * 32 * 64 * 2, "multi-query: one head of 64 in each of 32 layers"
    MambaConfig().save_pretrained(folder)
    assert "keys and values of unknown size" in memory_plan(models, config(), [task(50)], "hf")[1]
    (folder / "config.json").write_text('{"model_type": "from_the_future"}')
    assert "keys and values of unknown size" in memory_plan(models, config(), [task(50)], "hf")[1]


@pytest.mark.skipif("gemma4" not in CONFIG_MAPPING, reason="this transformers has no Gemma 4")
def test_layers_of_different_sizes_have_no_one_size() -> None:
    assert key_value_bytes(CONFIG_MAPPING["gemma4"](), 2) is None
