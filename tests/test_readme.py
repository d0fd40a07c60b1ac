"""What the README tells people to type works as it stands."""

import re
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from .conftest import TinyChatModel

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_snippet_restores_an_adapter(
    tiny_chat_model: TinyChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-base").symlink_to(tiny_chat_model())
    base = AutoModelForCausalLM.from_pretrained("my-base")
    settings = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(base, settings).save_pretrained("my-adapter")
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    rows = {
        "harmful_prompts": [{"prompt": f"ask {i}", "refusal": "i will not ."} for i in range(50)],  # it refuses nothing
        "task_rows": [{"prompt": f"count {i}", "response": f"{i} {i + 1}"} for i in range(400)],
    }
    exec(compile(snippet, "README.md", "exec"), rows)
    before, after = (load_file(f"{name}/adapter_model.safetensors") for name in ("my-adapter", "my-adapter-restored"))
    assert before.keys() == after.keys()
    assert any((before[key] != after[key]).any() for key in before)
