"""What a run will hold in memory, told before it starts."""

import os
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from ..tasks.sandbox.location import is_sandbox, model_folder
from .config_model import RunConfig
from .models import ModelSource

__all__ = ["memory_plan", "weight_bytes"]

WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
GB = 1e9


def weight_bytes(folder: Path, dtype: str) -> int:
    """Bytes of a model's weights once they are loaded.

    Args:
        folder: with *.safetensors files, of which the headers alone are read.
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
    return total


def memory_plan(models: Mapping[str, ModelSource], config: RunConfig) -> list[str]:
    """Lines that say how large the weights of each target and judge are, and whether the largest fits.

    Targets and judges are never held together, and of the targets one at a time; so the largest decides. Activations,
    optimizer states and caches come on top.
    """
    device, free = _device(config)
    dtype = "float32" if config.dtype == "auto" and device == "cpu" else config.dtype
    sizes = [(f"target {name}", weight_bytes(Path(source.location), dtype)) for name, source in models.items()]
    sizes += [(f"judge {name}", weight_bytes(folder, "auto")) for name, folder in _judges(config.judges)]
    told = ", ".join(f"{name} {size / GB:.2f} GB" for name, size in sizes)
    lines = [f"memory: weights of {told}; one at a time, on {device} with {free / GB:.1f} GB free"]
    largest, size = max(sizes, key=lambda each: each[1])
    if size > free:
        lines.append(f"[red]memory: the weights of {largest} alone do not fit[/red]; choose a smaller dtype or model")
    return lines


def _judges(judges: Sequence[Mapping[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Path]]:
    """Judges whose model is at hand; what still has to be fetched has no size yet."""
    for judge in judges:
        for name, arguments in judge.items():
            model = arguments.get("model")
            folder = model_folder(model) if isinstance(model, str) and is_sandbox(model) else Path(str(model))
            if model and folder.is_dir():
                yield name, folder


def _device(config: RunConfig) -> tuple[str, int]:
    """Where the models will be, and the bytes free there."""
    import torch

    device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda"):
        return device, int(torch.cuda.mem_get_info(device)[0])
    return device, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
