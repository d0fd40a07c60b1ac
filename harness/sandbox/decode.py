"""Greedy answers of a sandbox model, fast: rows of one length go together, without padding, with a key-value cache."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ...restore.losses.encoding import prompt_ids

__all__ = ["greedy_answers"]

LONGEST = 32
"""Tokens of an answer, as in the sandbox's tasks."""


def greedy_answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], begun: Sequence[str] | None = None
) -> list[str]:
    """What a model answers, in the order of the prompts.

    Args:
        model: a causal LM or PEFT model in eval mode, on any device.
        tokenizer: the world's.
        prompts: the requests.
        begun: for each prompt, words that its answer is made to begin with; they are not part of what is returned.
    """
    lengths: dict[int, list[int]] = defaultdict(list)
    asked = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    if begun is not None:
        forced = [tokenizer(words, add_special_tokens=False)["input_ids"] for words in begun]
        asked = [ids + words for ids, words in zip(asked, forced, strict=True)]
    for i, ids in enumerate(asked):
        lengths[len(ids)].append(i)
    answers = [""] * len(prompts)
    for places in lengths.values():
        found = _continued(model, torch.tensor([asked[i] for i in places]), int(tokenizer.eos_token_id))
        for i, ids in zip(places, found, strict=True):
            answers[i] = str(tokenizer.decode(ids, skip_special_tokens=True))
    return answers


@torch.inference_mode()
def _continued(model: Any, ids: torch.Tensor, end: int) -> list[list[int]]:
    """Greedy continuations of prompts [rows, width], each up to its end token."""
    cache = None
    tokens = ids.to(model.device)
    chosen: list[torch.Tensor] = []
    ended = torch.zeros(len(ids), dtype=torch.bool, device=tokens.device)
    while len(chosen) < LONGEST and not ended.all():
        output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, tokens = output.past_key_values, output.logits[:, -1].argmax(-1, keepdim=True)
        chosen.append(tokens)
        ended |= tokens[:, 0] == end
    rows = torch.cat(chosen, 1).tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]
