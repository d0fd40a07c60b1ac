"""When a restoration has done enough: the stop at the smallest sufficient change."""

from collections.abc import Callable

from transformers import PreTrainedTokenizerBase

from .config import RestoreConfig
from .data import Rows
from .forget import forget_rows
from .losses import Losses

__all__ = ["stop_rule"]

ASKED, TOKENS = 32, 24
"""Held-out prompts that `stop=refused` asks, at most, and tokens of their answers."""


def stop_rule(
    losses: Losses, tokenizer: PreTrainedTokenizerBase, held_out: Rows, config: RestoreConfig
) -> Callable[[], str]:
    """Why the model as it stands needs no further update; an empty text where it does.

    Args:
        losses: of the tuned model.
        tokenizer: its tokenizer.
        held_out: harmful prompts that no update works on.
        config: `stop` and `refused_share`.
    """
    if config.stop == "base_loss":
        return _base_loss(losses)
    if config.stop == "refused":
        return _refused(losses, tokenizer, held_out[:ASKED], config)
    return lambda: ""


def _base_loss(losses: Losses) -> Callable[[], str]:
    forget = losses.on("forget")
    with losses.model.disable_adapter():
        level = forget.loss()

    def enough() -> str:
        loss = forget.loss()
        return f"forget loss {loss:.3f} has reached the base model's {level:.3f}" if loss >= level else ""

    return enough


def _refused(
    losses: Losses, tokenizer: PreTrainedTokenizerBase, prompts: Rows, config: RestoreConfig
) -> Callable[[], str]:
    def enough() -> str:
        _, report = forget_rows(losses.model, tokenizer, prompts, "self", TOKENS, config.micro_batch_size)
        share = report.refused / report.rows
        return f"{report.refused} of {report.rows} held-out prompts refused" if share >= config.refused_share else ""

    return enough
