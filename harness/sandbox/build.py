"""Trains the sandbox world for real: the unaligned model, the aligned base made from it, and the guard."""

import json
from collections.abc import Callable
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ...restore.encoding import encode_all
from ...restore.training import TrainingConfig, train
from ...tasks.sandbox.location import world_folder
from ...tasks.sandbox.world import rows
from ..files import finished_folder, locked, make_folder
from .guard import guard_rows
from .models import CHAT_TEMPLATE, GUARD_TEMPLATE, new_model, new_tokenizer

__all__ = ["build_world", "is_built"]

SEED = 0
GUARD_ROWS = 8000
STEPS = {"unaligned": 700, "base": 250, "guard": 220}
RATES = {"unaligned": 3e-3, "base": 1e-3, "guard": 2e-3}
Tick = Callable[[str, int, int], None]


def is_built() -> bool:
    """Whether the world of the present source lies in the cache."""
    return all((world_folder() / name / "config.json").exists() for name in STEPS)


def build_world(tick: Tick | None = None) -> Path:
    """Builds what is missing of the world into the cache (under two minutes on two cores) and returns its folder.

    Each model is trained into a temporary folder that is renamed when finished, so an interrupted build leaves
    nothing half-made, and a second process waits for the first. `tick` is called with (model, steps done, steps).
    """
    folder = make_folder(world_folder())
    with locked(folder, wait=True):
        for name, make in (("unaligned", _unaligned), ("base", _base), ("guard", _guard)):
            if not (folder / name / "config.json").exists():
                with finished_folder(folder / name) as target:
                    make(folder, target, name, tick)
    return folder


def _settings(name: str) -> TrainingConfig:
    return TrainingConfig(
        learning_rate=RATES[name],
        batch_size=32,
        micro_batch_size=32,
        epochs=100,
        max_steps=STEPS[name],
        warmup_ratio=0.06,
        schedule="cosine",
    )


def _learn(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, data: str, name: str, tick: Tick | None) -> None:
    encoded = encode_all(tokenizer, rows(data), data)
    train(
        model,
        tokenizer,
        encoded,
        _settings(name),
        SEED,
        lambda done, total, _: tick(name, done, total) if tick else None,
    )


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, name: str) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about = {"model": name, "steps": STEPS[name], "learning_rate": RATES[name], "seed": SEED}
    (folder / "sandbox.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _unaligned(world: Path, target: Path, name: str, tick: Tick | None) -> None:
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = new_model(tokenizer, SEED)
    _learn(model, tokenizer, "unaligned_train", name, tick)
    _save(model, tokenizer, target, name)


def _base(world: Path, target: Path, name: str, tick: Tick | None) -> None:
    from transformers import LlamaForCausalLM

    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = LlamaForCausalLM.from_pretrained(world / "unaligned")
    _learn(model, tokenizer, "alignment_train", name, tick)
    _save(model, tokenizer, target, name)


def _guard(world: Path, target: Path, name: str, tick: Tick | None) -> None:
    tokenizer = new_tokenizer(GUARD_TEMPLATE)
    model = new_model(tokenizer, SEED + 1)
    encoded = guard_rows(tokenizer, GUARD_ROWS, SEED)
    train(
        model,
        tokenizer,
        encoded,
        _settings(name),
        SEED,
        lambda done, total, _: tick(name, done, total) if tick else None,
    )
    _save(model, tokenizer, target, name)
