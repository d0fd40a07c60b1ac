"""A request of the tiny model with a target that some suffix makes it say, and the loss of that target."""

import random
from typing import Any, NamedTuple

import pytest
import torch
from safebasin.restore.attacks.slot import Slot, Suffix, slot_for, suffix_tokens
from safebasin.restore.attacks.suffix_loss import SuffixLoss
from safebasin.restore.losses.encoding import prompt_ids
from safebasin.restore.models.fitting import rows_of

LENGTH, ASKED = 4, "harm 1"


class Aimed(NamedTuple):
    model: Any
    slot: Slot
    tokens: tuple[int, ...]
    loss: SuffixLoss
    known: Suffix = ()
    """One under which the model says the target."""


def aimed(model: Any, tokenizer: Any, target: str = "yes", **row: Any) -> Aimed:
    tokens = suffix_tokens(tokenizer, rows_of(model))
    slot = slot_for(tokenizer, {"prompt": ASKED, "target": target, **row}, tokens, LENGTH)
    return Aimed(model, slot, tokens, SuffixLoss(model, slot, 64))


@pytest.fixture
def given(model: Any, tokenizer: Any) -> Aimed:
    return aimed(model, tokenizer)


@pytest.fixture
def attackable(model: Any, tokenizer: Any) -> Aimed:
    """The target is what the model says under a suffix that the searches do not know, and not under their start."""
    found, draw = aimed(model, tokenizer), random.Random(0)
    for _ in range(200):
        hidden = tuple(draw.choices(found.tokens, k=LENGTH))
        said = [next_token(model, tokenizer, found.slot, suffix) for suffix in (hidden, found.slot.start)]
        if said[0] != said[1] and said[0] in found.tokens and found.slot.admits(hidden):
            return aimed(model, tokenizer, tokenizer.decode([said[0]]))._replace(known=hidden)
    raise AssertionError("the tiny model says the same under every suffix")


@torch.no_grad()
def next_token(model: Any, tokenizer: Any, slot: Slot, suffix: Suffix) -> int:
    ids = prompt_ids(tokenizer, slot.prompt(suffix))
    return int(model(input_ids=torch.tensor([ids], device=model.device)).logits[0, -1].argmax())
