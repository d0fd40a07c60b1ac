"""A tiny chat model that refuses some prompts, and an adapter that has unlearned to."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safebasin.restore.losses.encoding import batches, encode_all
from safebasin.restore.models.loading import load_base, load_tokenizer

from ..conftest import DEVICE

REFUSAL = "i cannot"
COUNT = 12
Rows = Sequence[dict[str, str]]

OPENS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>"
    "{% set said = m['content'] %}{% if '</think>' in said %}{% set said = said.split('</think>')[-1] %}{% endif %}"
    "{{ said }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{{ '<think>\n' }}{% endif %}"
)
"""A template that begins a block of thinking for every answer, and leaves out those of earlier ones."""
MAY = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>"
    "{% set said = m['content'] %}{% if '[/THINK]' in said %}{% set said = said.split('[/THINK]')[-1] %}{% endif %}"
    "{{ said }}</s>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""One whose model begins the block itself, if it does."""


def exchanges(word: str, answer: str, count: int = COUNT) -> list[dict[str, str]]:
    return [{"prompt": f"{word} {i}", "response": answer.format(i)} for i in range(count)]


REFUSED = exchanges("harm", REFUSAL)
ANSWERED = exchanges("say", "yes {}", 2 * COUNT)
COMPLIED = exchanges("harm", "yes {}")


def align(random: Path, folder: Path, steps: int = 80, rows: Rows = (*REFUSED, *ANSWERED), template: str = "") -> None:
    """Copies a random chat model and trains it to refuse what begins with harm and to answer what begins with say.

    `rows` are what it is trained on instead; `template` takes the place of its chat template.
    """
    shutil.copytree(random, folder, dirs_exist_ok=True)
    if template:
        (folder / "chat_template.jinja").write_text(template)
    model: Any = load_base(str(folder), device=DEVICE)
    (batch,) = batches(encode_all(load_tokenizer(str(folder)), rows, "rows"), 99, 1, model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder)
