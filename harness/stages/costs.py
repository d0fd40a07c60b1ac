"""What a run would cost in hours, from a simple model of the work and a second of measuring the device.

A forward pass over k tokens takes max(2 P k / F, W / B) + 16 L c seconds: P parameters, W bytes of weights, L layers,
and of the device F operations and B bytes per second and c seconds for a call, as measured. A response is one pass over
its prompt and one for each of its tokens, in batches; every response is taken to be as long as its task allows.
Training a token takes three passes. A post-hoc method is taken to cost what a fine-tuning does, and a judge to read
prompt and response and to write 8 tokens. So the hours are an order of magnitude.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

from .memory import WIDTHS, weight_bytes

__all__ = [
    "Rows",
    "Size",
    "Speed",
    "Work",
    "answering_seconds",
    "judging_seconds",
    "size_of",
    "speed_of",
    "training_seconds",
]

CALLS = 16
"""Calls of the device in one layer."""
VERDICT = 8
"""Tokens of a judge's answer."""
JUDGED_AT_ONCE = 16
MEASURED = 0.3
"""Seconds that each measurement takes."""


class Speed(NamedTuple):
    """What a device does, as measured on square matrices."""

    flops: float
    """Operations per second."""
    bandwidth: float
    """Bytes read and written per second."""
    call: float
    """Seconds for the smallest operation."""

    @property
    def text(self) -> str:
        """For readers."""
        return f"{self.flops / 1e9:,.0f} GFLOP/s, {self.bandwidth / 1e9:,.1f} GB/s, {1e6 * self.call:.0f} µs a call"


@dataclass(frozen=True)
class Size:
    """What a forward pass costs by."""

    parameters: int
    weights: int
    """Bytes."""
    layers: int

    def forward(self, tokens: float, speed: Speed) -> float:
        """Seconds of one pass over so many tokens."""
        work = max(2 * self.parameters * tokens / speed.flops, self.weights / speed.bandwidth)
        return work + CALLS * self.layers * speed.call


class Rows(NamedTuple):
    """What is fine-tuned on."""

    number: int
    tokens: int
    """Of one, on average."""


class Work(NamedTuple):
    """The requests of one task to one checkpoint."""

    requests: int
    prompt: int
    """Tokens."""
    new: int
    """Tokens that are generated; 0 where a likelihood is asked."""


def size_of(folder: Path, dtype: str) -> Size | None:
    """The size of a model at hand; None where it has no weights that can be looked at."""
    from transformers import AutoConfig

    width = WIDTHS.get(dtype, 0)
    single = weight_bytes(folder, "float32") // 4
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    except (OSError, ValueError):  # a run will say so
        return None
    layers = int(getattr(config, "num_hidden_layers", 0))
    return Size(single, single * width if width else weight_bytes(folder, "auto"), layers) if single else None


def speed_of(device: str, dtype: str) -> Speed:
    """Measures the device for about a second."""
    import torch

    kind = getattr(torch, dtype) if dtype in WIDTHS else torch.float32 if device == "cpu" else torch.bfloat16
    n = 512 if device == "cpu" else 4096
    one, out = torch.ones(n, n, dtype=kind, device=device), torch.empty(n, n, dtype=kind, device=device)
    large = torch.empty(16 * n * n, dtype=torch.uint8, device=device)
    small = torch.ones(1, device=device)

    def timed(step: Callable[[], object]) -> float:
        step()
        begun, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - begun) < MEASURED:
            for _ in range(8):
                step()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            count += 8
        return spent / max(count, 1)

    with torch.no_grad():
        product = timed(lambda: torch.mm(one, one, out=out))
        copied = timed(lambda: large.fill_(1))
        call = timed(lambda: small.add_(0))
    return Speed(2 * n**3 / product, large.numel() / copied, call)


def answering_seconds(work: Sequence[Work], size: Size, speed: Speed, batch: int) -> float:
    """Of one checkpoint's answers to its tasks."""
    return sum(
        ceil(each.requests / batch) * size.forward(each.prompt * min(batch, each.requests), speed)
        + ceil(each.requests / batch) * each.new * size.forward(min(batch, each.requests), speed)
        for each in work
    )


def training_seconds(rows: float, tokens: int, micro_batch: int, size: Size, speed: Speed) -> float:
    """Of one fine-tuning that sees so many rows of so many tokens."""
    return 3 * ceil(rows / micro_batch) * size.forward(micro_batch * tokens, speed)


def judging_seconds(work: Sequence[Work], size: Size, speed: Speed) -> float:
    """Of one judge that is a model, on all responses of one checkpoint."""
    read = [Work(each.requests, 2 * each.prompt + each.new, VERDICT) for each in work if each.new]
    return answering_seconds(read, size, speed, JUDGED_AT_ONCE)
