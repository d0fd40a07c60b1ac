"""A checkpoint is trained on from its present weights, and kept on the way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.further import tune_further
from safebasin.restore.models.adapter_files import adapter_tensors
from safebasin.restore.models.checkpoint import kind_of
from safebasin.restore.models.loading import load_base, load_tokenizer, new_adapter, save_adapter

from ...conftest import TinyChatModel

ROWS = [{"prompt": f"count {i}", "response": f"{i} {i}"} for i in range(6)]
LORA = {"rank": 2, "alpha": 2.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture
def base(tiny_chat_model: TinyChatModel) -> str:
    return str(tiny_chat_model())


@pytest.fixture
def adapter(base: str, tmp_path: Path) -> Path:
    """One of another rank than a fresh one, that moves the model."""
    model = new_adapter(load_base(base), {**LORA, "rank": 3}, seed=5)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(model, tmp_path / "adapter", base)
    return tmp_path / "adapter"


def tuned(base: str, start: Path | None, output: Path, *steps: int, rate: float = 0.01) -> list[Path]:
    config = TrainingConfig(
        learning_rate=rate, batch_size=4, micro_batch_size=4, max_steps=steps[-1], schedule="constant"
    )  # fmt: skip
    folders = {step: output / str(step) for step in steps}
    output.mkdir()
    tune_further(base, start, ROWS, folders, config, LORA, 0, lambda what, done, total: None)
    return [*folders.values()]


def tensors(folder: Path) -> dict[str, Any]:
    return adapter_tensors(folder)


def test_an_adapters_own_parameters_go_on(base: str, adapter: Path, tmp_path: Path) -> None:
    (still,) = tuned(base, adapter, tmp_path / "still", 1, rate=1e-12)
    before, after = tensors(adapter), tensors(still)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value)
    (moved,) = tuned(base, adapter, tmp_path / "moved", 1)
    assert any(not torch.allclose(tensors(moved)[name], value) for name, value in before.items())


def test_a_copy_on_the_way_is_the_end_of_a_shorter_training(base: str, adapter: Path, tmp_path: Path) -> None:
    one, two = tuned(base, adapter, tmp_path / "long", 1, 2)
    (short,) = tuned(base, adapter, tmp_path / "short", 1)
    for name, value in tensors(short).items():
        torch.testing.assert_close(tensors(one)[name], value)
    assert any(not torch.allclose(tensors(two)[name], value) for name, value in tensors(one).items())


def test_the_base_gets_a_fresh_adapter(base: str, tmp_path: Path) -> None:
    (found,) = tuned(base, None, tmp_path / "out", 1)
    assert kind_of(found) == "adapter"
    assert {tensor.shape[0] for name, tensor in tensors(found).items() if "lora_A" in name} == {2}


def test_a_whole_model_stays_one_and_moves_in_the_adapted_matrices_alone(base: str, tmp_path: Path) -> None:
    start = load_base(base)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter.add_(0.01)
    start.save_pretrained(tmp_path / "whole")
    load_tokenizer(base).save_pretrained(tmp_path / "whole")
    one, two = tuned(base, tmp_path / "whole", tmp_path / "out", 1, 2)
    assert {kind_of(one), kind_of(two)} == {"full"}
    before = dict(start.named_parameters())
    moved = {n for n, p in load_base(str(one)).named_parameters() if not torch.allclose(p, before[n])}
    assert moved
    assert all("q_proj" in name or "v_proj" in name for name in moved)
    assert not (one / "adapter_config.json").exists()
