"""What a real model costs on a CPU, in turns within one run: its answers, and its restoration.

- Answers of the hf engine to real prompts, stored, over `model.generate` on the same prompts in the order of the file,
  at the same batch size.
- A restoration by the published estimator on rows of real lengths, over the bare passes that it makes.

    python benchmarks/real_model.py --model FOLDER --adapter FOLDER --data FOLDER [--rounds 3] [--threads 1]

The model refuses (an aligned one: docs/models.md), the adapter is a fine-tuning of it; --data is that of
`make demo-real`.
"""

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from lm_eval.api.instance import Instance
from restore_bare import bare_passes, in_turns, loss_at_labels, ratios
from restore_bench import SETS, Restoration, noted_passes
from safebasin.harness.engines.hf import HFEngine
from safebasin.harness.store.store import Store
from safebasin.harness.terminal.quiet import quiet
from safebasin.restore.alignment.refusals import refusal_for
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import encode_all
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.models.loading import load_adapter, load_base, load_tokenizer
from safebasin.restore.models.prepare import trainable_adapter

COUNTS = dict(zip(SETS, (8, 8, 8, 8, 16), strict=True))
CONFIG = RestoreConfig.from_preset("paper", iterations=1, pairs=4, min_pairs=1, batch_size=8, micro_batch_size=4)
"""An iteration of the published method on fewer rows."""


def prompts(data: Path, count: int) -> list[str]:
    """Requests of AdvBench and XSTest in turns: some are refused in a sentence, others answered to the last token."""
    harmful = pd.read_csv(data / "advbench" / "harmful_behaviors.csv")["goal"]
    other = pd.read_csv(data / "xstest" / "xstest_prompts.csv")["prompt"]
    return [text for pair in zip(harmful, other, strict=False) for text in pair][:count]


def answers(model: Any, tokenizer: Any, asked: list[str], batch: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Seconds of both ways, and how many answers differ."""
    chats = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in asked
    ]
    found: dict[str, list[str]] = {}

    def plain() -> None:
        tokenizer.padding_side, texts = "left", []
        for begin in range(0, len(chats), batch):
            given = tokenizer(chats[begin : begin + batch], return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.inference_mode():
                made = model.generate(**given, max_new_tokens=tokens, do_sample=False)
            texts += tokenizer.batch_decode(made[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
        found["plain"] = texts

    def ours() -> None:
        with TemporaryDirectory() as folder:
            store = Store(Path(folder) / "store.sqlite")
            engine = HFEngine(model, tokenizer, {"model": "benchmark"}, store, batch)
            settings = {"until": [], "max_gen_toks": tokens, "do_sample": False}
            found["ours"] = engine.generate_until([Instance("generate_until", {}, (c, settings), 0) for c in chats])
            store.close()

    wall, used = in_turns({"plain": plain, "ours": ours}, rounds)
    differ = sum(one.strip() != other.strip() for one, other in zip(found["plain"], found["ours"], strict=True))
    print(f"{differ} of {len(chats)} answers differ", flush=True)
    return {"seconds": wall, "time": ratios(wall["plain"], wall["ours"]), "cpu": ratios(used["plain"], used["ours"])}


def restoration(model: Any, tokenizer: Any, data: Path, rounds: int) -> dict[str, Any]:
    """Seconds of one iteration and of its passes."""
    goals = pd.read_csv(data / "advbench" / "harmful_behaviors.csv")["goal"]
    benign = pd.read_json(data / "alpaca_eval" / "text_davinci_003.jsonl", lines=True).to_dict("records")
    rows, taken = {}, 0
    for name, count in COUNTS.items():
        if name == "forget":
            given = [{"prompt": text, "response": refusal_for(text)} for text in goals[:count]]
        else:
            given, taken = benign[taken : taken + count], taken + count
        rows[name] = encode_all(tokenizer, given, name)
    with trainable_adapter(model) as parameters:
        made = Restoration(Losses(model, parameters, rows, tokenizer.pad_token_id, CONFIG.micro_batch_size, 0), CONFIG)
        with noted_passes() as passes:
            made.run()
        lengths = sorted(int(row) for batch, _ in passes for row in batch.attention_mask.sum(1))
        print(f"{len(passes)} passes over rows of {lengths[0]} to {lengths[-1]} tokens", flush=True)
        wall, used = in_turns(
            {"restoration": made.run, "bare": lambda: bare_passes(model, passes, loss_at_labels)}, rounds
        )
    return {
        "seconds": wall,
        "time": ratios(wall["restoration"], wall["bare"]),
        "cpu": ratios(used["restoration"], used["bare"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "adapter", "data"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in (("rounds", 3), ("threads", 1), ("prompts", 128), ("tokens", 32), ("batch", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(given.threads)
    tokenizer = load_tokenizer(str(given.model))
    model = load_adapter(load_base(str(given.model)), given.adapter)
    found = {
        "answers: plain generate / hf engine": answers(
            model, tokenizer, prompts(given.data, given.prompts), given.batch, given.tokens, given.rounds
        ),
        "restoration / bare passes": restoration(model, tokenizer, given.data, given.rounds),
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
