import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.methods.lora import Lora
from safetensors.torch import load_file


def test_training_lowers_the_loss_and_saves_a_standard_adapter(context: Any) -> None:
    ticks: list[tuple[str, int, int]] = []
    made = context(tick=lambda *news: ticks.append(news))
    built = Lora().build(made)
    assert built.details["last_loss"] < built.details["first_loss"]
    assert ticks[-1] == ("training", 9, 9)
    config = json.loads((made.output / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.base
    assert {tensor.dtype for tensor in load_file(made.output / "adapter_model.safetensors").values()} == {torch.float32}


def test_the_seed_decides_the_adapter(context: Any, adapter: Path) -> None:
    same, other = context(), context(seed=1)
    Lora().build(same)
    Lora().build(other)
    first, again, third = (load_file(f / "adapter_model.safetensors") for f in (adapter, same.output, other.output))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_an_empty_set_is_refused(context: Any) -> None:
    with pytest.raises(InputError, match="task_train set is empty"):
        Lora().build(context(data={"task_train": []}))


def test_it_is_registered() -> None:
    assert load("methods", "lora") is Lora
