"""What tests of the geometry commands share: adapters of a tiny model, a pair with rows, bars that show nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.harness.stages.geometry_restoring import Given
from safebasin.harness.terminal.console import safe_console
from safebasin.harness.terminal.progress import Bars, bars
from safebasin.restore.models.loading import load_base, save_adapter

from ...conftest import TinyChatModel


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """A random adapter of a base, saved."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    save_adapter(get_peft_model(load_base(str(base), device="cpu"), config), folder, str(base))
    return folder


@pytest.fixture(scope="module")
def given(tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A tiny pair, harmful prompts with refusals of their own, and rows of a task."""
    base, folder = tiny_chat_model(), tmp_path_factory.mktemp("pair")
    rows = {
        "harmful": [{"prompt": f"harm {'x' * i}", "target": f"sure {i}", "refusal": f"no, {i}"} for i in range(8)],
        "task": [{"prompt": f"say {'y' * i}", "response": f"yes {i}"} for i in range(16)],
    }
    sources = {}
    for name, own in rows.items():
        sources[name] = str(folder / f"{name}.jsonl")
        Path(sources[name]).write_text("".join(json.dumps(row) + "\n" for row in own))
    return Given(str(base), adapter(base, folder / "tuned", 1), sources, {}, device="cpu")


@pytest.fixture
def shown() -> Iterator[Bars]:
    with bars(safe_console(quiet=True)) as made:
        yield made
