"""Merged weights are those that PEFT merges; adapters that are no plain product are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.errors import InputError
from safebasin.harness.engines.merging import changed_weights, merged_weights
from safebasin.restore.models.loading import load_adapter, load_base

from ...conftest import TinyChatModel

MODULES = ["q_proj", "o_proj", "down_proj"]


@pytest.fixture
def base(tiny_chat_model: TinyChatModel) -> str:
    return str(tiny_chat_model())


def adapter(base: str, folder: Path, **settings: Any) -> Path:
    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": MODULES, "task_type": "CAUSAL_LM", **settings})
    model = get_peft_model(load_base(base), config)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"o_proj": 2}, "alpha_pattern": {"o_proj": 3, "layers.1.mlp.down_proj": 9}},
    ],
    ids=["plain", "rslora", "patterns"],
)
def test_merged_weights_are_pefts(base: str, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = adapter(base, tmp_path, **settings)
    expected = load_adapter(load_base(base), folder).merge_and_unload().state_dict()
    changed = dict(changed_weights(base, folder))
    assert len(changed) == 2 * len(MODULES)
    original = load_base(base).state_dict()
    assert all(not torch.equal(weight, original[name]) for name, weight in changed.items())
    found = dict(merged_weights(base, folder))
    assert found.keys() == expected.keys() - {"lm_head.weight"}  # tied
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-6, atol=1e-7)


def test_a_whole_model_comes_as_it_is(base: str, tiny_chat_model: TinyChatModel) -> None:
    other = tiny_chat_model(seed=3)
    expected = load_base(str(other)).state_dict()
    found = dict(changed_weights(base, other))
    assert found.keys() == expected.keys() - {"lm_head.weight"}
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"target_modules": ["embed_tokens"]}, "it has no tensor"),
    ],
)
def test_other_kinds_of_adapters_are_refused(base: str, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"{said}.*Use engine: hf"):
        list(changed_weights(base, adapter(base, tmp_path, **settings)))


def test_an_adapter_of_a_wider_model_is_refused(base: str, tiny_chat_model: TinyChatModel, tmp_path: Path) -> None:
    folder = adapter(str(tiny_chat_model(hidden=48)), tmp_path)
    with pytest.raises(InputError, match="does not fit the model"):
        list(changed_weights(base, folder))
