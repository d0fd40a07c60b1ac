"""When a restoration has done enough: the stop at the smallest sufficient change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from .config import RestoreConfig
from .data import Rows
from .encoding import prompt_ids
from .fit import check_fit
from .forget import forget_rows
from .losses import Losses

__all__ = ["Enough", "State", "stop_rule"]

TOKENS = 24
"""Of the answers to held-out prompts: enough to see how they begin."""


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
    with losses.model.disable_adapter():
        level = forget.loss()

    def enough() -> State:
        loss = forget.loss()
        return State(loss >= level, f"the forget loss is {loss:.3f}, the base model's {level:.3f}")

    return enough


def _refused(losses: Losses, tokenizer: PreTrainedTokenizerBase, prompts: Rows, config: RestoreConfig) -> Enough:
    """As many refusals as the base model gives on the same prompts, so that both err alike."""
    ids = [prompt_ids(tokenizer, row["prompt"]) for row in prompts]
    check_fit(losses.model, ids, "curvature_forget", TOKENS, config.max_length)

    def refusals(model: Any) -> int:
        losses.passes.forward += len(prompts)
        _, report = forget_rows(model, tokenizer, prompts, "self", TOKENS, config.micro_batch_size)
        return report.refused

    with losses.model.disable_adapter():
        target = refusals(losses.model)
    if not target:
        return lambda: None

    from scipy.stats import binomtest

    low, high = (100 * end for end in binomtest(target, len(prompts)).proportion_ci(method="wilson"))
    aim = f"{target} by the base model (95 % interval {low:.0f} to {high:.0f} %)"

    def enough() -> State:
        found = refusals(losses.model)
        text = f"{found} of {len(prompts)} held-out harmful prompts are refused, {aim}"
        return State(found >= target, text)

    return enough
