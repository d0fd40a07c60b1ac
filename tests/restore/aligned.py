"""A tiny chat model that refuses some prompts, and an adapter that has unlearned to."""

import shutil
from pathlib import Path
from typing import Any

import torch
from safebasin.restore.losses.encoding import batches, encode_all
from safebasin.restore.models.loading import load_base, load_tokenizer

from ..conftest import DEVICE

REFUSAL = "i cannot"
COUNT = 12


def exchanges(word: str, answer: str, count: int = COUNT) -> list[dict[str, str]]:
    return [{"prompt": f"{word} {i}", "response": answer.format(i)} for i in range(count)]


REFUSED = exchanges("harm", REFUSAL)
ANSWERED = exchanges("say", "yes {}", 2 * COUNT)
COMPLIED = exchanges("harm", "yes {}")


def align(random: Path, folder: Path, steps: int = 80) -> None:
    """Copies a random chat model and trains it to refuse what begins with harm and to answer what begins with say."""
    shutil.copytree(random, folder, dirs_exist_ok=True)
    model: Any = load_base(str(folder), device=DEVICE)
    (batch,) = batches(encode_all(load_tokenizer(str(folder)), [*REFUSED, *ANSWERED], "rows"), 99, 1, model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
