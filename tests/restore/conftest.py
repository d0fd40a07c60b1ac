"""A tiny random Llama with a LoRA adapter trained for a few steps, and rows for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.restore.loading import load_adapter, load_base, load_tokenizer
from safebasin.restore.methods.base import BuildContext
from safebasin.restore.methods.lora import Lora
from safebasin.restore.training import TrainingConfig

torch.set_num_threads(1)
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
Context = Callable[..., BuildContext]


def rows(word: str, count: int, answer: str = "yes {}") -> list[dict[str, str]]:
    return [{"prompt": f"{word} {i}", "response": answer.format(i)} for i in range(count)]


@pytest.fixture(scope="session")
def base(tiny_chat_model: Any) -> Path:
    return tiny_chat_model()


@pytest.fixture(scope="session")
def context(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Context:
    def make(**changes: Any) -> BuildContext:
        finetune = TrainingConfig(learning_rate=5e-3, batch_size=8, micro_batch_size=8, epochs=3)
        given: dict[str, Any] = {
            "base": str(base), "revision": None, "output": tmp_path_factory.mktemp("built"), "finetune": finetune,
            "lora": LORA, "data": {"task_train": rows("say", 24)}, "device": "cpu",
        }  # fmt: skip
        return BuildContext(**{**given, **changes})

    return make


@pytest.fixture(scope="session")
def adapter(context: Context) -> Path:
    """The folder of a fine-tuned adapter."""
    made = context()
    Lora().build(made)
    return made.output


@pytest.fixture(scope="session")
def tokenizer(base: Path) -> Any:
    return load_tokenizer(str(base))


@pytest.fixture
def model(base: Path, adapter: Path) -> Any:
    """The fine-tuned PEFT model, trainable."""
    return load_adapter(load_base(str(base), device="cpu"), adapter, trainable=True)
