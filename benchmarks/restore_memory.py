"""Peak memory of a restoration beside that of one step of fine-tuning, both on the same micro-batches.

A random Llama in the shape of SmolLM2-135M, nothing is downloaded; LoRA of rank 8 on queries and values, fp32, CPU.
Each figure is that of a process of its own: its peak resident set less the resident set once the model is loaded.
Fine-tuning is the project's own loop, with the model's own loss over all logits; the restoration has its default
settings but for few rows and the number of iterations.

    python benchmarks/restore_memory.py [--iterations 2] [--threads 1] [--output FILE]
    python benchmarks/restore_memory.py --tiny    # only to see that it runs
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from peft import LoraConfig, get_peft_model
from restore_bench import PAD, Restoration
from rich.console import Console
from rich.table import Table
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.training import train
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.prepare import trainable_adapter
from transformers import LlamaConfig, LlamaForCausalLM

SMOL: dict[str, Any] = {
    "vocab_size": 49152, "num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9,
    "num_key_value_heads": 3, "intermediate_size": 1536,
}  # fmt: skip
TINY: dict[str, Any] = {**SMOL, "vocab_size": 512, "num_hidden_layers": 2, "hidden_size": 36}
RUNS = {"training": "one step of fine-tuning", "restoration": "restoration"}
MICRO, SHORTEST, LONGEST = 8, 64, 128
COUNTS = {"forget": 8, "refusals": 8, "curvature_forget": 8, "retain_1": 8, "retain_2": 8, "retain_check": 8}
"""A micro-batch of each set; the two retain sets together give two."""


def random_rows(count: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Rows of 64 to 128 tokens, of which the longest is one; the first quarter carries no loss."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [LONGEST, *torch.randint(SHORTEST, LONGEST + 1, (count - 1,), generator=generator).tolist()]
    rows = [torch.randint(1, vocabulary, (length,), generator=generator).tolist() for length in lengths]
    return [Encoded(tuple(row), len(row) // 4) for row in rows]


def adapted(tiny: bool) -> Any:
    """The model, its adapter away from zero."""
    torch.manual_seed(0)
    shape = TINY if tiny else SMOL
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)), lora)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(0, 0.02)
    return model.eval()


def fine_tune(model: Any) -> None:
    """One optimizer step on one micro-batch."""
    config = TrainingConfig(batch_size=MICRO, micro_batch_size=MICRO, max_steps=1)
    tokenizer: Any = SimpleNamespace(pad_token_id=PAD, eos_token_id=PAD)
    train(model, tokenizer, random_rows(MICRO, model.config.vocab_size, 1), config, seed=0)


def restore(model: Any, iterations: int) -> dict[str, Any]:
    """The default, the bound in nats (random rows are no task) and every update allowed."""
    config = RestoreConfig(iterations=iterations, epsilon=10.0, stop="none", micro_batch_size=MICRO)
    rows = {
        name: random_rows(count, model.config.vocab_size, seed) for seed, (name, count) in enumerate(COUNTS.items())
    }
    rows["retain"] = [*rows["retain_1"], *rows["retain_2"]]
    with trainable_adapter(model) as parameters:
        losses = Losses(model, parameters, rows, PAD, MICRO, config.seed)
        trace = Restoration(losses, config).run()
    return {"row_passes": trace.row_passes, "iterations": len(trace.iterations), "ended": trace.ended}


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measure_here(what: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a child process does. Linux only."""
    model = adapted(given.tiny)
    with torch.no_grad():  # what a first pass sets up once is part of what is loaded
        model(input_ids=torch.ones(1, 2, dtype=torch.long))
    before, begin = resident(), time.perf_counter()
    if what == "training":
        fine_tune(model)
        told: dict[str, Any] = {"row_passes": float(MICRO)}
    else:
        told = restore(model, given.iterations)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"bytes": peak - before, "loaded": before, "seconds": seconds, **told}


def measure(what: str, given: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own."""
    command = [sys.executable, __file__, "--of", what, "--threads", str(given.threads)]
    command += ["--iterations", str(given.iterations), *(["--tiny"] if given.tiny else [])]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def report(found: dict[str, dict[str, Any]], console: Console) -> None:
    """Prints what was found."""
    table = Table("", "peak above the loaded model", "seconds", "row-passes", title=f"Micro-batches of {MICRO} rows")
    for name, one in found.items():
        table.add_row(
            RUNS[name], f"{one['bytes'] / 2**20:.0f} MiB", f"{one['seconds']:.1f}", f"{one['row_passes']:.1f}"
        )
    console.print(table)
    ratio = found["restoration"]["bytes"] / found["training"]["bytes"]
    done = found["restoration"]
    console.print(
        f"Peak memory, restoration / fine-tuning: {ratio:.2f}. Iterations: {done['iterations']}, {done['ended']}"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--iterations", type=int, default=2)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--tiny", action="store_true", help="a tiny model, to see that it runs")
    options.add_argument("--output", type=Path, help="a JSON file for all figures; nothing is written without it")
    options.add_argument("--of", choices=RUNS, help=argparse.SUPPRESS)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    if given.of:
        print(json.dumps(measure_here(given.of, given)))
        return
    found = {name: measure(name, given) for name in RUNS}
    report(found, Console())
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
