"""What a VISAGE sweep costs: safebasin's and the official procedure in turns, on a model with random weights.

    python benchmarks/visage.py [--points 3] [--rounds 2] [--prompts 80] [--tokens 64] [--size tiny|30m|1b|7b]
                                [--device cpu|cuda] [--dtypes float32 bfloat16]

The official procedure, as published: the direction lies on disk, the weights are rewritten from it at every point, and
80 prompts are answered in batches of 4, in the first of the types. safebasin answers them in one batch, in each of
them. All answer the same prompts with the same number of tokens; a point costs the same wherever it is, so a few stand
for 21. Memory is the most that a process takes (of the GPU, or resident) that answers once with the model as it is,
and one that sweeps.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.engines.perturbation import is_norm
from safebasin.harness.store.store import Store
from safebasin.harness.terminal.quiet import quiet
from safebasin.tasks.perturbation import Perturbation
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
PUBLISHED_BATCH = 4


SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
    "30m": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 10},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "vocab_size": 128256},
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False},
}  # fmt: skip
"""The two large ones have the shapes of Llama-3.2-1B and Llama-2-7B."""


def random_model(size: str, dtype: str, device: str) -> Any:
    """A Llama with random weights, made on the device."""
    torch.manual_seed(0)
    common = {
        "vocab_size": 300, "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "tie_word_embeddings": True,
    }  # fmt: skip
    with torch.device(device):
        model: Any = LlamaForCausalLM._from_config(LlamaConfig(**common | SIZES[size]), dtype=getattr(torch, dtype))
    return model.eval()


def byte_tokenizer() -> Any:
    """One token per byte, padded on the left."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>", padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


class Official:
    """The published procedure: direction on disk, weights rewritten from it, small batches."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path) -> None:
        self.model, self.tokenizer, self.file = model, tokenizer, folder / "direction.pt"
        direction = {}
        for name, weight in model.state_dict().items():
            noise = torch.randn_like(weight)
            direction[name] = torch.zeros_like(weight) if is_norm(name) else noise * (weight.norm() / noise.norm())
        torch.save(direction, self.file)
        self.origin = {name: weight.clone() for name, weight in model.state_dict().items()}

    @torch.inference_mode()
    def sweep(self, alphas: list[float | None], prompts: list[str], tokens: int) -> None:
        """At every point, moves the weights and answers all prompts."""
        for alpha in alphas:
            direction = torch.load(self.file)
            moved = {name: weight + (alpha or 0) * direction[name] for name, weight in self.origin.items()}
            self.model.load_state_dict(moved)
            for start in range(0, len(prompts), PUBLISHED_BATCH):
                self._answer(prompts[start : start + PUBLISHED_BATCH], tokens)

    def _answer(self, prompts: list[str], tokens: int) -> None:
        given = self.tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
        given = given.to(self.model.device)
        made = self.model.generate(**given, max_new_tokens=tokens, do_sample=False, pad_token_id=1)
        self.tokenizer.batch_decode(made)


class Ours:
    """The engine of safebasin, with a store, all prompts in one batch."""

    def __init__(self, model: Any, tokenizer: Any, folder: Path, prompts: int) -> None:
        self.engine = HFEngine(model, tokenizer, {}, Store(folder / "store.sqlite"), batch_size=prompts)
        self.generating = 0.0
        generate = self.engine._model_generate

        def timed(**arguments: Any) -> Any:
            with stopwatch() as took:
                made = generate(**arguments)
            self.generating += took[0]
            return made

        self.engine._model_generate = timed

    def sweep(self, alphas: list[float | None], prompts: list[str], tokens: int) -> None:
        """All points in one call, as a run asks for them; None is the model as it is."""
        settings = [{"perturbation": Perturbation(0, alpha).text} if alpha is not None else {} for alpha in alphas]
        plain = {"until": [], "max_gen_toks": tokens, "do_sample": False}
        self.engine.generate_until(
            [Instance("generate_until", {}, (prompt, plain | own), 0) for prompt in prompts for own in settings]
        )


@contextmanager
def stopwatch() -> Iterator[list[float]]:
    """Yields a list that holds the seconds taken once the block ends."""
    took: list[float] = []
    start = time.perf_counter()
    yield took
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    took.append(time.perf_counter() - start)


def questions(count: int) -> list[str]:
    """Different prompts of 25 tokens, about what AdvBench's have."""
    return [f"<s>please answer question {i:03d}" for i in range(count)]


def in_turns(given: argparse.Namespace, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds in all, and of these outside generation, of each way, over all rounds."""
    tokenizer, first = byte_tokenizer(), given.dtypes[0]
    published = Official(random_model(given.size, first, given.device), tokenizer, folder)
    ways: dict[str, Any] = {f"official, {first}, batches of 4": published}
    for dtype in given.dtypes:
        (folder / dtype).mkdir()
        model = random_model(given.size, dtype, given.device)
        ways[f"safebasin, {dtype}"] = Ours(model, tokenizer, folder / dtype, given.prompts)
    seconds = dict.fromkeys(ways, 0.0)
    for turn in range(given.rounds):
        alphas = [(turn * given.points + i + 1) * 0.5 / (given.rounds * given.points) for i in range(given.points)]
        for name, way in ways.items():
            with stopwatch() as took:
                way.sweep(alphas, questions(given.prompts), given.tokens)
            seconds[name] += took[0]
    ours = {name: seconds[name] - way.generating for name, way in ways.items() if isinstance(way, Ours)}
    return seconds, ours


def peak(given: argparse.Namespace, dtype: str, alphas: list[float | None]) -> float:
    """The most memory (MB) of a process that answers at these points: of the GPU, or its largest resident set."""
    order = json.dumps([vars(given), dtype, alphas])
    done = subprocess.run([sys.executable, __file__, "--child", order], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(order: str) -> None:
    """What `peak` starts."""
    options, dtype, alphas = json.loads(order)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(options["size"], dtype, options["device"])
        way = Ours(model, byte_tokenizer(), Path(folder), options["prompts"])
        way.sweep(alphas, questions(options["prompts"]), options["tokens"])
    if options["device"] != "cpu":
        print(torch.cuda.max_memory_allocated() / 2**20)
        return
    # not ru_maxrss, which counts the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    print(int(line.split()[1]) / 1024)


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--points", 3), ("--rounds", 2), ("--prompts", 80), ("--tokens", 64)):
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
    print(f"{count} points x {given.prompts} prompts x {given.tokens} tokens, {where}")
    with tempfile.TemporaryDirectory() as folder:
        seconds, outside = in_turns(given, Path(folder))
    official = next(iter(seconds.values()))
    for name, total in seconds.items():
        line = f"{name:30s} {total / count:7.2f} s a point   {official / total:5.2f} x as fast"
        print(line + (f"   {100 * outside[name] / total:4.1f} % outside generation" if name in outside else ""))
    gc.collect()
    if given.device != "cpu":
        torch.cuda.empty_cache()
    for dtype in () if given.size == "tiny" else given.dtypes:
        plain, swept = peak(given, dtype, [None]), peak(given, dtype, [0.1, 0.2])
        print(f"peak memory, {dtype}: {plain:.0f} MB as it is, {swept:.0f} MB in a sweep: {swept / plain:.2f} x")


if __name__ == "__main__":
    main()
