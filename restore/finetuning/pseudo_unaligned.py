"""A stand-in for an unaligned model that was never published: the aligned one after a short harmful fine-tuning."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..losses.encoding import question
from ..method import BuildContext
from ..models.loading import load_base, load_tokenizer, new_adapter
from ..restoration.forget import AFFIRMATIVE, encode_forget
from .projection import Difference, lora_pairs
from .training import train

__all__ = ["harmful_difference"]

BATCH = 16
"""Rows per step: harmful sets are small."""


def harmful_difference(context: BuildContext, steps: int) -> tuple[Difference, dict[str, Any]]:
    """Fine-tunes the aligned model on the forget rows (prompt and `target`) and returns V = aligned - fine-tuned.

    The fine-tuning is a LoRA with the run's settings, so V = -s B A has at most its rank.

    Returns:
        V by module name, and what to note of the training.

    Raises:
        InputError: there are no forget rows, or training diverges; on reading V, the module was not adapted.
    """
    from peft import get_peft_model_state_dict

    rows = [
        {**question(row), "response": row.get("target") or AFFIRMATIVE, "ending": "open"}
        for row in context.data.get("forget", ())
    ]
    if not rows:
        raise InputError("pseudo_unaligned needs forget rows (columns prompt and target), and there are none.")
    tokenizer = load_tokenizer(context.base, context.revision)
    encoded = encode_forget(tokenizer, rows, context.max_length)
    base = load_base(context.base, context.revision, context.dtype, context.device)
    model = new_adapter(base, context.lora, context.seed, context.revision)
    if context.finetune.gradient_checkpointing:
        model.enable_input_require_grads()
    batch = min(BATCH, context.finetune.batch_size)
    micro = min(batch, context.finetune.micro_batch_size)
    config = replace(context.finetune, batch_size=batch, micro_batch_size=micro, max_steps=steps)
    losses: list[float] = []

    def progress(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        context.tick("unaligning", done, total)

    train(model, tokenizer, encoded, config, context.seed, progress)
    pairs = lora_pairs({name: part.detach().cpu() for name, part in get_peft_model_state_dict(model).items()})
    adapter = model.peft_config[model.active_adapter]
    scale = adapter.lora_alpha / adapter.r

    def difference(module: str) -> Tensor:
        if module not in pairs:
            raise InputError(f"The run's target_modules do not cover '{module}', which the adapter changes. Add it.")
        a, b = pairs[module]
        return torch.mm(b.float(), a.float()).mul_(-scale)

    noted = {"rows": len(rows), "steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1]}
    return difference, noted
