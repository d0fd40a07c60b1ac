"""When a restoration has done enough: the stop at the smallest sufficient change."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config.settings import RestoreConfig
from ..losses.encoding import asked, prompt_ids, question
from ..losses.fit import check_fit
from ..losses.of_model import Losses
from ..models.reference import as_base
from ..models.thinking import thinking_of
from .data import Rows
from .forget import encode_forget, looks_like_refusal, own_answers

__all__ = ["Enough", "State", "stop_rule"]

TOKENS = 24
"""Of the answers to held-out prompts: enough to see how they begin, where a model does not think first."""
BROKEN = 0.4
"""A refusal that surprises the base model by so many nats per token more than its own do is no whole one.

In the sandbox, whole refusals of tuned models came to at most 0.3 more, those that broke off or ran into an answer to
0.45 at least.
"""


@dataclass(frozen=True)
class State:
    """How far a model is restored."""

    enough: bool
    text: str
    """The measurement in words, with its target."""


Enough = Callable[[], State | None]
"""Measures the model as it stands; None where there is nothing to measure it by."""


def stop_rule(losses: Losses, tokenizer: PreTrainedTokenizerBase, held_out: Rows, config: RestoreConfig) -> Enough:
    """What tells whether the model as it stands needs no further update.

    Args:
        losses: of the tuned model.
        tokenizer: its tokenizer.
        held_out: harmful prompts that no update works on.
        config: `stop`, `held_out`, the size of micro-batches and the longest row.

    Raises:
        InputError: a held-out prompt does not fit the model.
    """
    if config.stop == "base_loss":
        return _base_loss(losses)
    if config.stop == "refused":
        return _refused(losses, tokenizer, held_out[: config.held_out], config)
    return lambda: None


def _base_loss(losses: Losses) -> Enough:
    forget = losses.on("forget")
    with as_base(losses.model):
        level = forget.loss()

    def enough() -> State:
        loss = forget.loss()
        return State(loss >= level, f"the forget loss is {loss:.3f}, the base model's {level:.3f}")

    return enough


def _refused(losses: Losses, tokenizer: PreTrainedTokenizerBase, prompts: Rows, config: RestoreConfig) -> Enough:
    """As many whole refusals as the base model gives on the same prompts, so that both err alike."""
    texts = [asked(row) for row in prompts]
    encoded = [prompt_ids(tokenizer, text) for text in texts]
    tokens = TOKENS if thinking_of(tokenizer) is None else max(TOKENS, config.max_new_tokens)
    check_fit(losses.model, encoded, "curvature_forget", tokens, config.max_length)

    def refusals() -> list[dict[str, Any]]:
        losses.passes.forward += len(texts)
        answers = own_answers(losses.model, tokenizer, texts, tokens, config.micro_batch_size)
        return [
            {**question(row), "response": text, "ending": "closed" if ended else "open"}
            for row, (text, ended) in zip(prompts, answers, strict=True)
            if looks_like_refusal(text)
        ]

    known: dict[str, float] = {}

    def surprise(rows: list[dict[str, Any]]) -> list[float]:
        """Of the base model at each text, in nats per token; a text that it has seen needs no further pass."""
        new = [row for row in rows if str(row) not in known]
        if new:
            encoded = encode_forget(tokenizer, new, config.max_length + tokens)
            with as_base(losses.model):
                found = losses.on_rows(encoded, "held-out refusals").row_losses()
            known.update(zip(map(str, new), found, strict=True))
        return [known[str(row)] for row in rows]

    with as_base(losses.model):
        own = refusals()
    if not own:
        warnings.warn(
            f"The base model refuses none of the {len(texts)} held-out harmful prompts within {tokens} tokens, so that "
            "nothing tells when the restoration is done: it takes all its iterations. Give harmful prompts that the "
            "base refuses, or more max_new_tokens to a model that thinks first.",
            stacklevel=2,
        )
        return lambda: None
    most, target = fmean(surprise(own)) + BROKEN, len(own)

    from scipy.stats import binomtest

    low, high = (100 * end for end in binomtest(target, len(texts)).proportion_ci(method="wilson"))
    aim = f"{target} by the base model (95 % interval {low:.0f} to {high:.0f} %)"

    def enough() -> State:
        found = surprise(refusals())
        whole = sum(value <= most for value in found)
        broken = f" and {len(found) - whole} in broken words" if whole < len(found) else ""
        text = f"{whole} of {len(texts)} held-out harmful prompts are refused{broken}, {aim}"
        return State(whole >= target, text)

    return enough
