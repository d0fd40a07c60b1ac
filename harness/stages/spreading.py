"""What each device will hold of a model that is spread over several: of the weights, and of what training adds."""

from collections.abc import Iterator

from ..config.model import RunConfig
from .costs import Size

__all__ = ["FULL", "spread_lines"]

FULL = 16
"""Bytes of each parameter that full fine-tuning in mixed precision holds: weights, gradients, and Adam's two moments,
in float32 each."""


def spread_lines(name: str, size: Size, config: RunConfig, engine: str, capacity: float | None) -> Iterator[str]:
    """One line for each thing that is done with a model, by what each device holds for it.

    Activations, keys and values, and an adapter with its optimizer come on top.

    Args:
        name: of the model.
        size: of it.
        config: of the run.
        engine: that answers.
        capacity: bytes of one device; None where they are not known.
    """
    for what, share, devices, key in _shares(size, config, engine):
        where = f"each of {devices} devices" if devices > 1 else "one device"
        yield f"  {name}, {what}: {share / 1e9:.1f} GB on {where}"
        if capacity is not None and share > capacity:
            yield f"  [red]that is more than the {capacity / 1e9:.0f} GB of one[/red]: raise {key}"


def _shares(size: Size, config: RunConfig, engine: str) -> Iterator[tuple[str, float, int, str]]:
    """(what is done, bytes on each device, devices, the key that lowers it)."""
    parallel = config.parallel
    mapped = max(1, int(config.resources.gpus)) if parallel.device_map else 1
    serving = parallel.tensor * parallel.pipeline if engine == "vllm" else mapped
    key = "parallel.tensor" if engine == "vllm" else "resources.gpus, with parallel.device_map"
    yield "answering", size.weights / serving, serving, key
    names = [spec.name for spec in config.methods]
    sharded = parallel.fsdp is not None or parallel.deepspeed is not None
    tuning = parallel.processes if sharded else 1 if parallel.processes > 1 else mapped
    key = "parallel.processes, with parallel.fsdp"
    if any(name not in ("base", "full") for name in names):
        yield "fine-tuning lora", size.weights / tuning, tuning, key
    if "full" in names:
        yield "fine-tuning full", FULL * size.parameters / tuning, tuning, key
    if any(name not in ("base", "lora", "full") for name in names):
        yield "other methods", size.weights / mapped, mapped, "resources.gpus, with parallel.device_map"
