"""A checkpoint is the base with its adapter, which is taken off again, or a model of its own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.harness.config.model import RunConfig
from safebasin.harness.stages.loading import as_checkpoint, load_base_of
from safebasin.harness.stages.models import resolve
from safebasin.restore.models.loading import load_base, load_tokenizer, save_adapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...conftest import TinyChatModel

IDS = torch.arange(5, 14)[None]


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS).logits
    return found


@pytest.fixture
def model(tiny_chat_model: TinyChatModel, tmp_path: Path) -> Path:
    """Its head is no longer tied to its embeddings."""
    folder = Path(shutil.copytree(tiny_chat_model(), tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"].clone())
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def config(model: Path) -> RunConfig:
    given = {"name": "t", "models": [str(model)], "methods": ["base"], "tasks": {}, "device": "cpu"}
    return RunConfig.model_validate_json(json.dumps(given))


def adapter(model: Path, folder: Path, table: bool) -> Tensor:
    """Saves a random adapter, with an embedding table of its own if told, and returns what it answers."""
    base, tokenizer = load_base(str(model), device="cpu"), load_tokenizer(str(model))
    if table:
        tokenizer.add_tokens(["<|new|>"], special_tokens=True)
        base.resize_token_embeddings(len(tokenizer))
        base.get_input_embeddings().weight.data += 0.3
    tuned: Any = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    save_adapter(tuned.eval(), folder, str(model))
    if table:
        tokenizer.save_pretrained(folder)
    return logits(tuned)


@pytest.mark.parametrize("table", [False, True])
def test_no_checkpoint_leaves_anything_on_the_base(model: Path, tmp_path: Path, table: bool) -> None:
    """Not even one whose embedding table takes the place of the base's."""
    wanted = adapter(model, tmp_path / "adapter", table)
    source, given = resolve(str(model)), config(model)
    base, tokenizer = load_base_of(source, given)
    before = logits(base)
    with as_checkpoint(base, tokenizer, tmp_path / "adapter", source, given) as (tuned, own):
        torch.testing.assert_close(logits(tuned), wanted)
        assert len(own) == len(tokenizer) + table
    assert torch.equal(logits(base), before)
    assert not torch.allclose(wanted[..., : before.shape[-1]], before, atol=1e-3)
    with as_checkpoint(base, tokenizer, None, source, given) as (same, own):
        assert (same, own) == (base, tokenizer)
