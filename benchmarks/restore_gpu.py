"""Time and memory of a whole restoration of 7B and 8B models on one GPU, beside the paper's figures.

Random weights in the shapes of Llama-2-7B, Llama-3.1-8B and Qwen2.5-7B, made on the GPU in bfloat16, nothing is
downloaded; LoRA of rank 32 on queries and values; 50 forget rows, 200 rows that hold the bound, all rows of 256 tokens.
`default` makes all of its 10 iterations here, as nothing ends it; `paper` makes 3 with 10 pairs of 64 rows each. With
random weights some probe steps are rejected, which costs further ones: the table has their number. FLOP are those of
matrix products and attention, counted on one micro-batch.

    python benchmarks/restore_gpu.py [--models llama-2-7b ...] [--presets default paper] [--micro-batch-size 4]
                                     [--output FILE]
    python benchmarks/restore_gpu.py --tiny --device cpu    # only to see that all of it runs
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from restore_bench import PAD, Restoration, fixed_rows, noted_passes, random_adapted
from restore_shapes import COMMON, MODELS, PAPER_GB, TINY
from rich.console import Console
from rich.table import Table
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.prepare import trainable_adapter
from torch.utils.flop_counter import FlopCounterMode

COUNTS = {
    "forget": 50, "refusals": 50, "curvature_forget": 256, "retain": 512, "retain_1": 256, "retain_2": 256,
    "retain_check": 200,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {"default": {"epsilon": 10.0, "stop": "none"}, "paper": {}}
"""With random weights there is nothing that fine-tuning gained, and nothing is refused."""
LENGTH, PROMPT = 256, 64


class Stopwatch:
    """Seconds of each curvature construction and each influence update, from a restoration's progress."""

    def __init__(self, config: RestoreConfig, device: str) -> None:
        self.construction: list[float] = []
        self.update: list[float] = []
        self._device, self._steps = device, config.pairs + 2
        self._begin = self._probed = self.now()
        self._gradient: float | None = None

    def now(self) -> float:
        """Once all work given to the device is done."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def tick(self, what: str, done: int, total: int) -> None:
        """Takes the time: after the gradient of an update, after each probe step, and after the line search."""
        now = self.now()
        if self._gradient is None:
            self._gradient, self._begin, self._probed = now - self._begin, now, now
        elif done < (len(self.construction) + 1) * self._steps:
            self._probed = now
        else:
            self.construction.append(self._probed - self._begin)
            self.update.append(self._gradient + now - self._probed)
            self._gradient, self._begin = None, now


def matmul_rate(device: str, size: int) -> float:
    """FLOP per second of a bfloat16 matrix product, the best of 20."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def flop_per_row(losses: Losses) -> tuple[int, int]:
    """FLOP per row of a gradient and of a loss."""
    rows = losses.rows["forget"][: losses.micro_batch_size]
    loss = TokenMeanLoss(losses.model, losses.parameters, rows, losses.micro_batch_size, PAD)
    found = []
    for run in (loss.loss_and_gradient, loss.loss):
        with FlopCounterMode(display=False) as counter:
            run()
        found.append(counter.get_total_flops() // len(rows))
    return found[0], found[1]


def run_whole(restoration: Restoration, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds, passes and FLOP of a restoration, after one gradient and one loss to warm up."""
    losses, config = restoration.losses, restoration.config
    of_gradient, of_loss = flop_per_row(losses)
    watch = Stopwatch(config, given.device)
    begin = watch.now()
    with noted_passes() as passes:
        trace = restoration.run(watch.tick if config.estimator == "lbfgs" else lambda *_: None)
    seconds = watch.now() - begin
    rows = [sum(len(batch.input_ids) for batch, made in passes if made == gradient) for gradient in (True, False)]
    found = {
        "seconds": seconds,
        "iterations": len(trace.iterations),
        "iteration seconds": median(row["seconds"] for row in trace.iterations),
        "ended": trace.ended,
        "rows with gradient": rows[0],
        "rows without": rows[1],
        "flop": rows[0] * of_gradient + rows[1] * of_loss,
    }
    if config.estimator == "lbfgs":
        found |= {
            "construction seconds": median(watch.construction),
            "update seconds": median(watch.update),
            "probe steps": len(trace.probes),
            "pairs": sum(row["pairs"] for row in trace.iterations),
        }
    return found


def measure(name: str, preset: str, given: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model under one preset."""
    kind, shape, _ = MODELS[name]
    shape = {**shape, **(TINY if given.tiny else {})}
    if given.device == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = random_adapted(kind(**shape, **COMMON), given.device, torch.bfloat16)
    divide = 16 if given.tiny else 1
    config = RestoreConfig.from_preset(
        preset, micro_batch_size=given.micro_batch_size, batch_size=64 // divide, **SETTINGS[preset]
    )
    made = {
        part: fixed_rows(max(1, count // divide), LENGTH // divide, PROMPT // divide, shape["vocab_size"], seed)
        for seed, (part, count) in enumerate(COUNTS.items())
    }
    with trainable_adapter(model) as parameters:
        losses = Losses(model, parameters, made, PAD, config.micro_batch_size, config.seed)
        found = run_whole(Restoration(losses, config), given)
    print(f"{name}, {preset}: {found['seconds']:.1f} s", file=sys.stderr, flush=True)
    found["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    found["peak GB"] = torch.cuda.max_memory_allocated() / 1e9 if given.device == "cuda" else None
    return found


def report(found: dict[str, dict[str, dict[str, Any]]], rate: float, device: str) -> None:
    """Prints the figures beside the paper's."""
    table = Table("", *(f"{name}\n{preset}" for name, presets in found.items() for preset in presets))
    columns = [(name, row) for name, presets in found.items() for row in presets.values()]

    def line(what: str, value: Callable[[str, dict[str, Any]], str]) -> None:
        table.add_row(what, *(value(name, row) for name, row in columns))

    def of(key: str, form: str) -> Callable[[str, dict[str, Any]], str]:
        return lambda name, row: "-" if row.get(key) is None else format(row[key], form)

    line("seconds of a curvature construction", of("construction seconds", ".1f"))
    line("  in the paper (one H100)", lambda name, row: str(MODELS[name][2][0]))
    line("seconds of an influence update", of("update seconds", ".1f"))
    line("  in the paper", lambda name, row: str(MODELS[name][2][1]))
    line("seconds of an iteration", of("iteration seconds", ".1f"))
    line("iterations", of("iterations", "d"))
    line("seconds in all", of("seconds", ".1f"))
    line(
        "probe steps, of which pairs",
        lambda name, row: f"{row['probe steps']}, {row['pairs']}" if "pairs" in row else "-",
    )
    line("rows with gradient, without", lambda name, row: f"{row['rows with gradient']}, {row['rows without']}")
    line("peak GB", of("peak GB", ".1f"))
    line("TFLOP/s", lambda name, row: f"{row['flop'] / row['seconds'] / 1e12:.3g}")
    line("  of a matrix product's", lambda name, row: f"{row['flop'] / row['seconds'] / rate:.0%}")
    console = Console()
    console.print(table)
    console.print(f"{device}: {rate / 1e12:.3g} TFLOP/s in a bfloat16 matrix product.")
    console.print(f"The paper's peak (Llama-2-7B): {PAPER_GB} GB. Aim on one H200: at most 120 s in all and 22 GB.")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    options.add_argument("--presets", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options.add_argument("--micro-batch-size", type=int, default=4, help="rows per forward pass: memory against speed")
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--tiny", action="store_true", help="tiny shapes and few rows, to see that it runs")
    options.add_argument("--output", type=Path, help="a JSON file for all figures; nothing is written without it")
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device was found. Run this on a machine with one, or add --tiny --device cpu.", file=sys.stderr)
        return 2
    if given.device == "cpu" and not given.tiny:
        print("A 7B model on the CPU would take days. Add --tiny.", file=sys.stderr)
        return 2
    rate = matmul_rate(given.device, 256 if given.tiny else 8192)
    found = {name: {preset: measure(name, preset, given) for preset in given.presets} for name in given.models}
    device = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    report(found, rate, device)
    if given.output:
        whole = {"device": device, "matmul FLOP/s": rate, "models": found}
        given.output.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
