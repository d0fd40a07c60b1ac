"""Tests of the vLLM engine. They need vLLM and run in an environment of their own: `make test-vllm`."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from ..conftest import TinyChatModel

collect_ignore_glob = ["test_*.py"] if find_spec("vllm") is None else []

Checkpoints = dict[str, Path]
HIDDEN = 64
"""Two heads of 32, the narrowest that vLLM computes on the CPU."""
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 8, "lora_alpha": 4, "use_rslora": True, "target_modules": MODULES},
    "patterns": {
        "r": 2, "lora_alpha": 4, "target_modules": MODULES,
        "rank_pattern": {"o_proj": 6}, "alpha_pattern": {"v_proj": 1},
    },
}  # fmt: skip


def random_adapter(base: Path, folder: Path, settings: dict[str, Any], seed: int) -> Path:
    """Saves an adapter of random weights, large enough to change what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="session")
def base(tiny_chat_model: TinyChatModel) -> Path:
    """A random Llama; its generation config has a setting that changes greedy answers."""
    folder = tiny_chat_model(hidden=HIDDEN)
    (folder / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.2}))
    return folder


@pytest.fixture(scope="session")
def checkpoints(base: Path, tiny_chat_model: TinyChatModel, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Adapters of several kinds, and a whole model of the same shape."""
    made = tmp_path_factory.mktemp("adapters")
    numbered = enumerate(ADAPTERS.items())
    found = {name: random_adapter(base, made / name, settings, seed) for seed, (name, settings) in numbered}
    return {**found, "full": tiny_chat_model(seed=7, hidden=HIDDEN)}


@pytest.fixture(scope="session")
def targets(base: Path, checkpoints: Checkpoints) -> Iterator[dict[str, Any]]:
    """The same base in both engines; one vLLM for all tests that do not end it."""
    from safebasin.harness.config.model import RunConfig
    from safebasin.harness.stages.models import resolve
    from safebasin.harness.stages.targets import target_for

    config = RunConfig.model_validate_json(
        json.dumps({"name": "t", "models": [str(base)], "methods": ["base"], "tasks": {}, "device": "cpu"})
    )
    all_of_them = [None, *checkpoints.values()]
    source = resolve(str(base))
    with (
        target_for("hf", source, all_of_them, config, print) as hf,
        target_for("vllm", source, all_of_them, config, print) as vllm,
    ):
        yield {"hf": hf, "vllm": vllm}
