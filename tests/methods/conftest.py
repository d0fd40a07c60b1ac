"""A tiny world for each architecture (base, unaligned base, parent adapter), and each method built once in it."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.harness.config.settings import make_method
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.method import BuildContext, Built
from safebasin.restore.methods.lora import Lora
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, Qwen2Config

from .cases import CASES, Case

torch.set_num_threads(1)
ARCHITECTURES = ("llama", "qwen2", "mistral")
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
FINETUNE = TrainingConfig(learning_rate=1e-2, batch_size=8, micro_batch_size=4, max_steps=2)
SAFETY = ("forget", "curvature_forget", "safety")


@dataclass(frozen=True)
class World:
    """What there is to build from."""

    architecture: str
    base: Path
    unaligned: Path
    parent: Path
    """An adapter that `lora` trained for 2 steps."""

    @property
    def digests(self) -> dict[Path, str]:
        """SHA-256 of every file that a method may read and must not write."""
        files = [file for folder in (self.base, self.unaligned, self.parent) for file in sorted(folder.iterdir())]
        return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@dataclass(frozen=True)
class Build:
    """A method's finished folder, and what happened on the way."""

    method: Any
    world: World
    output: Path
    result: Built
    ticks: Sequence[tuple[str, int, int]]
    touched: Sequence[Path]
    """Files of the world that were changed, added or removed."""


def rows(split: str) -> list[dict[str, str]]:
    """As the harness hands them out, with the base's refusals added: prompts of no two splits are the same."""
    if split in SAFETY:
        said = {"target": "sure, ok", "response": "i cannot", "refusal": "i cannot"}
        return [{"prompt": f"{split} {i}", **said} for i in range(6)]
    return [{"prompt": f"{split} {i}", "response": f"yes {i}"} for i in range(8)]


@pytest.fixture(scope="session")
def make_world(tiny_chat_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """The world of an architecture; made once."""
    made: dict[str, World] = {}

    def make(architecture: str) -> World:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            base, unaligned, parent = (folder / name for name in ("base", "unaligned", "parent"))
            _save_base(architecture, tiny_chat_model(), base)
            _save_unaligned(base, unaligned)
            parent.mkdir()
            Lora().build(_context(base, parent, data={"task_train": rows("task_train")}))
            made[architecture] = World(architecture, base, unaligned, parent)
        return made[architecture]

    return make


def _save_base(architecture: str, llama: Path, folder: Path) -> None:
    shutil.copytree(llama, folder)  # its tokenizer serves all
    if architecture == "llama":
        return
    common: Any = {
        "vocab_size": len(AutoTokenizer.from_pretrained(llama)), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "initializer_range": 0.2,
    }  # fmt: skip
    made = {
        "qwen2": lambda: Qwen2Config(**common, tie_word_embeddings=True),
        "mistral": lambda: MistralConfig(**common, tie_word_embeddings=False, sliding_window=16),
    }
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(made[architecture]())
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero at birth, where a mistake with them would not show
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)


def _save_unaligned(base: Path, folder: Path) -> None:
    """The base with a change of rank 2 on its query and value weights, as if these had been aligned."""
    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            outputs, inputs = parameter.shape
            parameter.data += 0.1 * torch.randn(outputs, 2) @ torch.randn(2, inputs)
    model.save_pretrained(folder)


def _context(base: Path, output: Path, **changes: Any) -> BuildContext:
    given: dict[str, Any] = {"finetune": FINETUNE, "lora": LORA, "device": "cpu", "max_length": 64, **changes}
    return BuildContext(base=str(base), revision=None, output=output, **given)


def context_of(method: Any, world: World, output: Path, **changes: Any) -> BuildContext:
    """As the harness makes it: with the splits that the method needs, and a parent if it is post-hoc."""
    given = {
        "data": {split: rows(split) for split in method.needs},
        "parent": world.parent if method.stage == "post-hoc" else None,
        "unaligned": str(world.unaligned),
    }
    return _context(world.base, output, **{**given, **changes})


def build_in(case: Case, world: World, output: Path) -> Build:
    """Builds a case, and watches."""
    method, before = make_method(case.method, case.settings), world.digests
    ticks: list[tuple[str, int, int]] = []
    result = method.build(context_of(method, world, output, tick=lambda *news: ticks.append(news)))
    touched = sorted({file for file, _ in before.items() ^ world.digests.items()})
    return Build(method, world, output, result, ticks, touched)


@pytest.fixture(scope="session")
def get_build(make_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Build]:
    """The build of a case on an architecture; made once for all checks."""
    made: dict[tuple[str, str], Build] = {}

    def get(case: Case, architecture: str) -> Build:
        key = str(case), architecture
        if key not in made:
            made[key] = build_in(case, make_world(architecture), tmp_path_factory.mktemp(f"{case}-{architecture}"))
        return made[key]

    return get


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def built(get_build: Any, case: Case, architecture: str) -> Build:
    """One case on one architecture."""
    found: Build = get_build(case, architecture)
    return found
