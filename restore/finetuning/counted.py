"""Training for a given number of row-passes, the unit in which repairs are compared."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..config.training import TrainingConfig
from ..losses.encoding import Encoded
from ..losses.passes import Passes
from .training import Progress, train

__all__ = ["steps_for", "train_counted"]


def steps_for(row_passes: int, rows: int, batch_size: int) -> int:
    """Optimizer steps that run at least `row_passes` rows; the last batch of an epoch holds what is left of it."""
    epochs, rest = divmod(row_passes, rows)
    return epochs * ceil(rows / batch_size) + ceil(rest / batch_size)


def train_counted(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    row_passes: int,
    seed: int,
    progress: Progress | None = None,
) -> Passes:
    """`train` for as many steps as `row_passes` take, whatever `config` says of steps and epochs.

    Returns:
        What ran, counted at the model's own forward passes.

    Raises:
        InputError: the loss or the gradient norm is not finite.
    """
    passes = Passes()

    def count(module: Any, inputs: Any, named: dict[str, Any]) -> None:
        passes.gradient += len(named["input_ids"])

    handle = model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        steps = steps_for(row_passes, len(rows), config.batch_size)
        train(model, tokenizer, rows, replace(config, max_steps=steps), seed, progress)
    finally:
        handle.remove()
    return passes
