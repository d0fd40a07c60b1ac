"""Training of all parameters of a model."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ..config.training import TrainingConfig
from ..losses.encoding import Encoded
from ..method import Tick
from .training import train

__all__ = ["train_whole"]


def train_whole(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    seed: int,
    tick: Tick,
    master_weights: bool = True,
) -> list[float]:
    """Trains every parameter of `model` in place; afterwards it has its own type again.

    Args:
        model: a plain causal LM.
        tokenizer: only its pad id is used.
        rows: encoded training rows.
        config: optimizer settings.
        seed: decides the order of rows.
        tick: progress.
        master_weights: trains fp32 weights, with bfloat16 arithmetic where the model is bfloat16.

    Returns:
        The training loss after each step, in nats per token.

    Raises:
        InputError: training diverges.
    """
    dtype = model.dtype
    if master_weights:
        model.float()
        config = replace(config, bf16=config.bf16 or dtype == torch.bfloat16)
    model.requires_grad_(True)
    losses: list[float] = []

    def progress(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        tick("training", done, total)

    train(model, tokenizer, rows, config, seed, progress)
    if whole := getattr(model, "gathered", None):
        model.gathered = {name: weight.to(dtype) for name, weight in whole.items()}
    elif whole is None:
        model.to(dtype)
    return losses
