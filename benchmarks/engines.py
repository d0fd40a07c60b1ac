"""Both engines in turns: base and an adapter answer the same prompts, with loading, merging, probing and storing.

python benchmarks/engines.py [--rounds 2] [--prompts 128] [--tokens 64] [--hidden 512] [--layers 8]
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lm_eval.api.instance import Instance
from safebasin.harness.config.model import RunConfig
from safebasin.harness.sandbox.models import CHAT_TEMPLATE, new_model, new_tokenizer
from safebasin.harness.stages.models import ModelSource, resolve
from safebasin.harness.stages.targets import target_for
from safebasin.harness.store.store import Store
from safebasin.harness.terminal.quiet import quiet
from safebasin.restore.models.loading import new_adapter, save_adapter
from safebasin.tasks.sandbox.world import rows

Times = dict[str, list[float]]


def make_models(folder: Path, hidden: int, layers: int) -> tuple[ModelSource, Path]:
    """A random Llama with the sandbox's words, and a random adapter of rank 32 on queries and values."""
    tokenizer = new_tokenizer(CHAT_TEMPLATE)
    model = new_model(tokenizer, 0, hidden, layers)
    size = sum(weight.numel() for weight in model.parameters()) / 1e6
    print(f"{size:.1f} M parameters, hidden {hidden}, {layers} layers")
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    adapted = new_adapter(model, {}, 0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    save_adapter(adapted, folder / "adapter")
    return resolve(str(folder / "base")), folder / "adapter"


def requests(source: ModelSource, count: int, tokens: int) -> list[Instance]:
    """Greedy requests for answers of exactly this many tokens, unless the model ends them."""
    tokenizer: Any = new_tokenizer(CHAT_TEMPLATE)
    asked = [row["prompt"] for row in rows("task_train")][:count]
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in dict.fromkeys(asked)
    ]
    return [
        Instance("generate_until", {}, (t, {"until": [], "max_gen_toks": tokens, "do_sample": False}), 0) for t in texts
    ]


@contextmanager
def timed(times: Times, what: str) -> Iterator[None]:
    """Notes seconds on the clock, and of all threads of this process: the latter matter where others compute too."""
    start, own = time.perf_counter(), time.process_time()
    yield
    times[what].append(time.perf_counter() - start)
    times[f"{what}, CPU"].append(time.process_time() - own)


def turn(
    engine: Any, source: ModelSource, adapter: Path, config: RunConfig, asked: list[Instance], times: Times
) -> list[str]:
    """One turn of an engine: start, then base and adapter."""
    found: list[str] = []
    with TemporaryDirectory() as folder, target_for(engine, source, [None, adapter], config, print) as target:
        store, first = Store(Path(folder) / "store.sqlite"), True
        for name, checkpoint in (("base", None), ("adapter", adapter)):
            start = time.perf_counter()
            with target.serving(checkpoint, {"adapter": name}, store, lambda *_: None) as served:
                times[f"{engine}: {'start' if first else 'change of checkpoint'}"].append(time.perf_counter() - start)
                first = False
                with timed(times, f"{engine}: answers"):
                    found += served.generate_until(asked)
        store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 2), ("prompts", 128), ("tokens", 64), ("hidden", 512), ("layers", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    quiet()
    times: Times = defaultdict(list)
    with TemporaryDirectory() as folder:
        source, adapter = make_models(Path(folder), given.hidden, given.layers)
        settings = {"name": "b", "models": [source.name], "methods": ["base"], "tasks": {}, "batch_size": 64}
        config = RunConfig.model_validate_json(json.dumps(settings))
        asked = requests(source, given.prompts, given.tokens)
        for _ in range(given.rounds):
            found = [turn(engine, source, adapter, config, asked, times) for engine in ("hf", "vllm")]
            differing = sum(a != b for a, b in zip(*found, strict=True))
            print(f"{differing} of {len(found[0])} answers differ, {len(set(found[0]))} distinct")
    for what, seconds in times.items():
        print(f"{what:28} {' '.join(f'{s:6.2f}' for s in seconds)} s")


if __name__ == "__main__":
    main()
