"""How much a restoration costs beyond its forward and backward passes, and beside a plain reading of the paper.

On a random Llama of 30 M parameters on the CPU, in turns within one run:

- a restoration over the bare passes that it makes, of the same micro-batches, forward-only ones among them: once with
  logits at the labels alone, as the restoration computes them, and once with the model's own loss over all logits;
- Algorithms 1 and 2 as they stand (`restore_reference.py`), with as many probe steps, over a restoration: time and,
  in processes of their own, peak memory above that of the loaded model.

    python benchmarks/restore_passes.py [--repetitions 5] [--threads 2] [--output FILE]
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from restore_bare import Run, bare_passes, in_turns, loss_at_labels, loss_over_all_logits, ratios
from restore_bench import PAD, SETS, Restoration, noted_passes, random_adapted, uneven_rows
from restore_reference import restore_plainly
from rich.console import Console
from rich.table import Table
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter
from transformers import LlamaConfig

SIZES: dict[str, dict[str, Any]] = {
    "full": {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 9, "num_attention_heads": 8},
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
VOCABULARY = 4096
"""Gives the head the share of the parameters that it has in an 8B model with 128,000 tokens."""
COUNTS = {"forget": 6, "curvature_forget": 32, "retain_1": 32, "retain_2": 32, "retain_check": 24}
CONFIG = RestoreConfig.from_preset("paper", iterations=1, batch_size=8, micro_batch_size=4)
"""With `COUNTS`, an eighth of the default sizes and one iteration of three."""
OURS, PLAIN = "restoration", "plain reading"


def new_problem(model: Any, parameters: FlatParameters) -> Restoration:
    """A restoration of the model on rows of uneven length."""
    rows = {name: uneven_rows(COUNTS[name], 128, VOCABULARY, seed) for seed, name in enumerate(SETS)}
    return Restoration(Losses(model, parameters, rows, PAD, CONFIG.micro_batch_size, CONFIG.seed), CONFIG)


def plainly(restoration: Restoration, steps: list[int]) -> None:
    """The plain reading on the same rows, with as many probe steps."""
    losses = restoration.losses
    with losses.parameters.preserved():
        restore_plainly(
            losses.model, losses.parameters, losses.rows["forget"], [losses.rows[name] for name in SETS[1:4]], steps,
            CONFIG.batch_size, CONFIG.micro_batch_size,
        )  # fmt: skip
    losses.parameters.zero_grad()


def all_runs(restoration: Restoration) -> tuple[dict[str, Run], dict[str, int]]:
    """What is timed, and what the restoration consists of."""
    model = restoration.losses.model
    with noted_passes() as passes:
        trace = restoration.run()
    steps = [sum(probe["iteration"] == row["iteration"] for probe in trace.probes) for row in trace.iterations]
    about = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "adapter parameters": restoration.losses.parameters.size,
        "probe steps": sum(steps),
        "gradient passes": sum(gradient for _, gradient in passes),
        "forward-only passes": sum(not gradient for _, gradient in passes),
        "tokens": sum(int(batch.attention_mask.sum()) for batch, _ in passes),
        "tokens with padding": sum(batch.input_ids.numel() for batch, _ in passes),
        "labels": sum(len(batch.targets) for batch, _ in passes),
    }
    runs: dict[str, Run] = {
        OURS: restoration.run,
        "bare passes, logits at labels": lambda: bare_passes(model, passes, loss_at_labels),
        "bare passes, all logits": lambda: bare_passes(model, passes, loss_over_all_logits),
        PLAIN: lambda: plainly(restoration, steps),
    }
    return runs, about


def peak(given: argparse.Namespace, name: str) -> int:
    """Bytes that a run adds, at its peak, to the memory of a process that holds the model."""
    command = [sys.executable, __file__, "--size", given.size, "--threads", str(given.threads), "--peak-of", name]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def resident(what: str) -> int:
    """Bytes of this process's memory, by the kernel's name of the figure."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(what)))


def print_peak(restoration: Restoration, name: str) -> None:
    """What the child process does. Linux only: the kernel keeps the peak."""
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is in use
    before = resident("VmRSS")
    if name == OURS:
        restoration.run()
    else:
        plainly(restoration, [CONFIG.pairs] * CONFIG.iterations)
    print(resident("VmHWM") - before)


def measure(given: argparse.Namespace, restoration: Restoration) -> dict[str, Any]:
    """All figures."""
    runs, about = all_runs(restoration)
    wall, used = in_turns(runs, given.repetitions)
    found = {}
    for clock, taken in (("time", wall), ("processor time", used)):
        for name in (name for name in runs if name.startswith("bare")):
            found[f"{OURS} / {name}: {clock}"] = ratios(taken[OURS], taken[name])
        found[f"{PLAIN} / {OURS}: {clock}"] = ratios(taken[PLAIN], taken[OURS])
    peaks = [(peak(given, OURS), peak(given, PLAIN)) for _ in range(given.memory_repetitions)]
    if peaks:
        found[f"{PLAIN} / {OURS}: peak memory"] = ratios(*list(zip(*peaks, strict=True))[::-1])
    return {
        "about": about,
        "seconds": wall,
        "processor seconds": used,
        "peak bytes (restoration, plain reading)": peaks,
        "ratios": found,
    }


def report(found: dict[str, Any], console: Console) -> None:
    """Prints what was found."""
    console.print(", ".join(f"{name} {value:,}" for name, value in found["about"].items()))
    table = Table("", "median", "least", "most", title="Ratios over the repetitions")
    for name, ratio in found["ratios"].items():
        table.add_row(name, *(f"{value:.3f}" for value in ratio.values()))
    console.print(table)
    console.print("Seconds: " + ", ".join(f"{name} {median(taken):.2f}" for name, taken in found["seconds"].items()))
    for ours, plain in found["peak bytes (restoration, plain reading)"]:
        console.print(f"Peak above the loaded model: {OURS} {ours / 2**20:.0f} MiB, {PLAIN} {plain / 2**20:.0f} MiB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--repetitions", type=int, default=5)
    options.add_argument("--memory-repetitions", type=int, default=3)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--size", choices=SIZES, default="full", help="tiny: to see that it runs")
    options.add_argument("--output", type=Path, help="a JSON file for all figures; nothing is written without it")
    options.add_argument("--peak-of", help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    config = LlamaConfig(vocab_size=VOCABULARY, tie_word_embeddings=True, initializer_range=0.05, **SIZES[given.size])
    model = random_adapted(config, "cpu", torch.float32)
    with trainable_adapter(model) as parameters:
        restoration = new_problem(model, parameters)
        if given.peak_of:
            print_peak(restoration, given.peak_of)
            return
        found = measure(given, restoration)
    report(found, Console())
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
