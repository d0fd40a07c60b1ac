"""What a run will hold in memory, told before it starts."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.markup import escape

from ...errors import InputError
from ...tasks.catalog import TaskInfo
from ...tasks.sandbox.location import in_world, is_sandbox, model_folder, world_of
from ...vllm_setup import key_value_bytes
from ..config.model import RunConfig
from ..engines.choice import EngineName
from .models import ModelSource

__all__ = ["PROMPT", "available_memory", "device_of", "judge_bytes", "judges_at_hand", "memory_plan", "weight_bytes"]

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
PROMPT = 128
"""Tokens of a prompt, for the plan."""


def weight_bytes(folder: Path, dtype: str) -> int:
    """Bytes of a model's weights once they are loaded.

    Args:
        folder: with *.safetensors files, of which the headers alone are read, or else pytorch_model*.bin.
        dtype: what they are loaded as; "auto" keeps the type of each tensor.
    """
    from safetensors import safe_open

    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            entries = sum(prod(file.get_slice(name).get_shape()) for name in names)
        stored = path.stat().st_size
        total += entries * WIDTHS[dtype] if dtype in WIDTHS else stored
    pickled = 0 if total else sum(path.stat().st_size for path in folder.glob("pytorch_model*.bin"))
    return total or pickled


def memory_plan(
    models: Mapping[str, ModelSource], config: RunConfig, infos: Iterable[TaskInfo], engine: EngineName
) -> list[str]:
    """Lines that say what each target and judge takes, and what does not fit.

    Of a target that is its weights, and the keys and values of a batch of prompts of 128 tokens with the longest
    answers that a task allows. Activations, and what training and restoring need, come on top. Targets and judges
    are never held together, and of the targets one at a time.

    Args:
        models: by name.
        config: of the run.
        infos: the run's tasks.
        engine: what generates; vLLM answers as many requests at a time as fit.
    """
    device, free = _device(config)
    tokens = PROMPT + max((config.max_gen_toks or info.new_tokens for info in infos if info.new_tokens), default=0)
    rows = config.batch_size if engine == "hf" else 1
    dtype = "float32" if config.dtype == "auto" and device == "cpu" else config.dtype
    lines = [f"memory: {decimal(free)} free on {device}, for one of these at a time"]
    for name, source in models.items():
        folder = Path(source.location)
        weights, row = weight_bytes(folder, dtype), _row_bytes(folder, dtype, tokens)
        cache = "of unknown size" if row is None else f"{decimal(rows * row)} ({rows} x {tokens} tokens)"
        lines.append(f"  target {escape(name)}: weights {decimal(weights)}, keys and values {cache}")
        if weights + (row or 0) > free:
            lines.append("  [red]that does not fit[/red]: choose a smaller dtype or model, or lower max_gen_toks")
        elif row and weights + rows * row > free:
            lines.append(f"  [red]that batch does not fit[/red]: batch_size={(free - weights) // row} may")
    for name, folder in _judges(config.judges, world_of(config.models[0].id)):
        weights = weight_bytes(folder, "auto")
        lines.append(f"  judge {name}: weights {decimal(weights)}")
        if weights > free:
            lines.append("  [red]that does not fit[/red]: choose a smaller judge")
    return lines


def _row_bytes(folder: Path, dtype: str, tokens: int) -> int | None:
    """Bytes of the keys and values of one row, in buffers that may be an eighth longer; None where nobody knows."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError):  # the run will say so of the rows that need this model
        return None
    loaded = str(config.dtype or "float32").removeprefix("torch.") if dtype == "auto" else dtype
    token = key_value_bytes(config, WIDTHS.get(loaded, 4))
    return None if token is None else (tokens + tokens // 8) * token


def judge_bytes(judge: Mapping[str, Mapping[str, Any]], world: int) -> int | None:
    """Bytes of the weights that a judge loads: 0 for one without a model, None where it still has to be fetched."""
    if not any("model" in (arguments or {}) for arguments in judge.values()):
        return 0
    found = [weight_bytes(folder, "auto") for _, folder in _judges([judge], world)]
    return sum(found) if found else None


def judges_at_hand(config: RunConfig) -> Iterator[tuple[str, Path]]:
    """The judges of a run that have a model, with its folder, where that is on this machine."""
    return _judges(config.judges, world_of(config.models[0].id))


def _judges(judges: Sequence[Mapping[str, Mapping[str, Any]]], world: int) -> Iterator[tuple[str, Path]]:
    """Judges whose model is at hand; what still has to be fetched has no size yet. Guards of all worlds are alike."""
    for judge in judges:
        for name, arguments in judge.items():
            model = arguments.get("model")
            if model and (folder := _at_hand(str(model), world)):
                yield name, folder


def _at_hand(model: str, world: int) -> Path | None:
    try:
        folder = model_folder(in_world(model, world)) if is_sandbox(model) else Path(model)
    except InputError:  # the world is not built yet
        return None
    return folder if folder.is_dir() else None


def device_of(config: RunConfig) -> str:
    """Where the models will be."""
    import torch

    return config.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _device(config: RunConfig) -> tuple[str, int]:
    """Where the models will be, and the bytes free there."""
    import torch

    device = device_of(config)
    if device.startswith("cuda"):
        return device, int(torch.cuda.mem_get_info(device)[0])
    return device, available_memory()


def available_memory() -> int:
    """Bytes of main memory that a new process can have: free pages, and those that only cache files."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        (kibibytes,) = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return kibibytes << 10
