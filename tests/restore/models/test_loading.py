import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safebasin.errors import InputError
from safebasin.restore.models.loading import load_adapter, load_base, load_tokenizer, new_adapter, save_adapter

from ...conftest import DEVICE


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(12, device=model.device).unsqueeze(0)).logits.cpu()


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Cannot load the model '.*nowhere'"):
        load_base(str(tmp_path / "nowhere"))


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Cannot load the tokenizer"):
        load_tokenizer(str(tmp_path))


def test_an_unknown_dtype_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="Unknown dtype 'float31'"):
        load_base(str(base), dtype="float31")


def test_a_fresh_adapter_leaves_the_function_unchanged(base: Path) -> None:
    plain = logits(load_base(str(base), device=DEVICE))
    adapted = new_adapter(load_base(str(base), device=DEVICE), {"rank": 2}, seed=0)
    assert torch.equal(logits(adapted.eval()), plain)
    assert all(p.dtype == torch.float32 for p in adapted.parameters() if p.requires_grad)


def test_a_fresh_adapter_is_fp32_on_a_bf16_base(base: Path) -> None:
    adapted = new_adapter(load_base(str(base), dtype="bfloat16", device=DEVICE), {"rank": 2}, seed=0)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize(
    ("lora", "message"), [({"ranks": 2}, "Unknown adapter settings"), ({"target_modules": ["zz"]}, "Cannot add a LoRA")]
)
def test_bad_adapter_settings(base: Path, lora: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        new_adapter(load_base(str(base), device=DEVICE), lora, seed=0)


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_a_saved_adapter_is_an_ordinary_peft_folder(base: Path, adapter: Path, tmp_path: Path) -> None:
    ours = load_adapter(load_base(str(base), device=DEVICE), adapter)
    save_adapter(ours, tmp_path / "out", "the/base")
    theirs = PeftModel.from_pretrained(load_base(str(base), device=DEVICE), str(tmp_path / "out")).eval()
    assert torch.equal(logits(ours), logits(theirs))
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"] == "the/base"


@pytest.mark.filterwarnings("ignore:Could not find a config file")
def test_so_is_one_of_another_name(base: Path, adapter: Path, tmp_path: Path) -> None:
    named = PeftModel.from_pretrained(load_base(str(base), device=DEVICE), str(adapter), adapter_name="mine").eval()
    save_adapter(named, tmp_path / "out")
    again = load_adapter(load_base(str(base), device=DEVICE), tmp_path / "out")
    assert torch.equal(logits(named), logits(again))
    assert not (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_is_refused(base: Path, adapter: Path, tmp_path: Path, missing: str) -> None:
    shutil.copytree(adapter, tmp_path / "copy")
    (tmp_path / "copy" / missing).unlink()
    with pytest.raises(InputError, match="is no PEFT adapter"):
        load_adapter(load_base(str(base), device=DEVICE), tmp_path / "copy")


def test_a_missing_adapter_folder_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_adapter(load_base(str(base), device=DEVICE), tmp_path / "none")


def _llama(**changes: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    given = {
        "vocab_size": 261, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**given, **changes}))


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize("changes", [{"hidden_size": 16}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_an_adapter_for_another_model_is_refused(adapter: Path, changes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="does not fit the model"):
        load_adapter(_llama(**changes), adapter)
