"""What a loss landscape costs: safebasin's walk in place and a copy of the model for each point, in turns.

    python benchmarks/landscape.py [--points 3] [--rounds 2] [--rows 32] [--tokens 64] [--size tiny|30m|1b]
                                   [--device cpu|cuda] [--dtypes float32 bfloat16]

Models have random weights, rows are random tokens, and both ways take the losses of the same rows at the same points,
by the same code. A point costs the same wherever it is, so a few stand for 400. Memory is the most that a process takes
(of the GPU, or resident) that takes the losses of the model as it is, that walks, and that copies. The gradient that
directions are made of is random here: taking the real one is a backward pass of each row, once.
"""

import argparse
import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safebasin.harness.terminal.quiet import quiet
from safebasin.restore.geometry.directions import direction_file, moved_weights
from safebasin.restore.geometry.landscape import walk
from safebasin.restore.geometry.row_losses import RowLosses
from safebasin.restore.losses.encoding import Encoded
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 300},
    "30m": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10, "vocab_size": 300},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
WAYS = ("copy for each point", "in place")


def random_model(size: str, dtype: str, device: str) -> Any:
    torch.manual_seed(0)
    common = {"num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    with torch.device(device):
        config = LlamaConfig(**common | SIZES[size], tie_word_embeddings=True)
        model: Any = LlamaForCausalLM._from_config(config, dtype=getattr(torch, dtype))
    return model.eval()


class Random(Mapping[str, Tensor]):
    """A gradient that is drawn when it is asked for."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self.shapes = {name: weight.shape for name, weight in weights.items()}

    def __getitem__(self, name: str) -> Tensor:
        return torch.randn(self.shapes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.shapes)

    def __len__(self) -> int:
        return len(self.shapes)


class Bench:
    """One model with its rows and directions, and the seconds that its forward passes took."""

    def __init__(self, given: argparse.Namespace, dtype: str, folder: Path) -> None:
        self.model = random_model(given.size, dtype, given.device)
        generator = np.random.default_rng(0)
        rows = [Encoded(tuple(generator.integers(0, 300, given.tokens).tolist()), 8) for _ in range(given.rows)]
        self.losses = RowLosses(rows, given.rows, 0, given.device)
        self.draws = {"rows": np.split(np.arange(given.rows), 2)}
        self.file = (folder / f"directions-{dtype}").open("w+b")
        weights = moved_weights(self.model)
        self.directions = direction_file(self.file, weights, Random(weights), (1000, 2000), "tensor")
        self.forward, sums = 0.0, self.losses.sums

        def timed(model: Any) -> Any:
            begun = now()
            found = sums(model)
            self.forward += now() - begun
            return found

        self.losses.sums = timed  # type: ignore[method-assign]

    def plain(self, points: list[tuple[float, float]]) -> None:
        for _ in points:
            self.losses.sums(self.model)

    def walk(self, points: list[tuple[float, float]]) -> None:
        list(walk(self.model, self.directions, {"rows": self.losses}, self.draws, {0: points}))

    @torch.no_grad()
    def copies(self, points: list[tuple[float, float]]) -> None:
        held = {name: tensor.to(self.model.device) for name, tensor in self.directions.items()}
        for a, b in points:
            moved = copy.deepcopy(self.model)
            for name, weight in moved_weights(moved).items():
                weight += a * held[f"1:{name}"] + b * held[f"2:{name}"]
            self.losses.sums(moved)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def in_turns(given: argparse.Namespace, dtype: str, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds in all, and of these outside forward passes, of each way over all rounds."""
    bench = Bench(given, dtype, folder)
    bench.plain([(0, 0)])  # warms up
    seconds = {way: [0.0, 0.0] for way in WAYS}
    for turn in range(given.rounds):
        points = [(0.01 - 0.001 * turn, -0.01 + 0.001 * point) for point in range(given.points)]
        for way, take in zip(WAYS, (bench.copies, bench.walk), strict=True):
            begun, bench.forward = now(), 0.0
            take(points)
            whole = now() - begun
            seconds[way][0] += whole
            seconds[way][1] += whole - bench.forward
    bench.file.close()
    return {way: (whole, outside) for way, (whole, outside) in seconds.items()}


def peak(given: argparse.Namespace, dtype: str, way: str) -> float:
    """The most memory (MB) of a process that does nothing else: of the GPU, or its largest resident set."""
    order = json.dumps([vars(given), dtype, way])
    done = subprocess.run([sys.executable, __file__, "--child", order], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(order: str) -> None:
    """What `peak` starts."""
    options, dtype, way = json.loads(order)
    given = argparse.Namespace(**options)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(given, dtype, Path(folder))
        {"plain": bench.plain, WAYS[0]: bench.copies, WAYS[1]: bench.walk}[way]([(0.01, 0.01), (0.01, -0.01)])
        bench.file.close()
    if given.device != "cpu":
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    # not ru_maxrss, which counts the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    print(int(line.split()[1]) / 1024)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--points", 3), ("--rounds", 2), ("--rows", 32), ("--tokens", 64)):
        options.add_argument(name, type=int, default=default)
    options.add_argument("--size", choices=SIZES, default="30m", help="tiny: and no measurement of memory")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options.add_argument("--child", help=argparse.SUPPRESS)
    given = options.parse_args(arguments)
    quiet()
    if given.child:
        child(given.child)
        return
    count = given.points * given.rounds
    where = f"{given.size}, {given.device}, {torch.get_num_threads()} threads"
    print(f"{count} points x {given.rows} rows x {given.tokens} tokens, {where}")
    for dtype in given.dtypes:
        with tempfile.TemporaryDirectory() as folder:
            seconds = in_turns(given, dtype, Path(folder))
        for way, (whole, outside) in seconds.items():
            share = f"{100 * outside / whole:5.1f} % outside forward passes"
            print(f"{dtype:9s} {way:20s} {whole / count:8.3f} s a point   {share}")
        if given.size != "tiny":
            plain = peak(given, dtype, "plain")
            for way in WAYS:
                print(f"{dtype:9s} {way:20s} {peak(given, dtype, way) / plain:5.2f} x the memory of plain evaluation")


if __name__ == "__main__":
    main()
