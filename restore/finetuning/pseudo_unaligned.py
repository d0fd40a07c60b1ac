"""Short fine-tunings of the aligned model: a harmful one, in place of a model before its alignment, and a safe one."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..losses.encoding import Encoded, question
from ..method import BuildContext
from ..models.loading import base_tokenizer, load_base, new_adapter
from ..models.lora_files import Factors, lora_pairs
from ..restoration.forget import AFFIRMATIVE, encode_forget
from ..restoration.refusals import safe_rows
from .projection import Difference
from .training import train

__all__ = ["harmful_adapter", "harmful_difference", "refusal_adapter"]

BATCH = 16
"""Rows per step: harmful sets are small."""
Adapter = tuple[dict[str, Factors], dict[str, Any]]
"""Module -> factors of its update, and what to note of the training."""


def harmful_difference(context: BuildContext, steps: int) -> tuple[Difference, dict[str, Any]]:
    """V = aligned - unaligned by module name, of the stand-in that `harmful_adapter` trains: of the adapter's rank.

    Raises:
        InputError: as `harmful_adapter`; on reading V, the module was not adapted.
    """
    found, noted = harmful_adapter(context, steps)

    def difference(module: str) -> Tensor:
        if module not in found:
            raise InputError(f"The run's target_modules do not cover '{module}', which the adapter changes. Add it.")
        a, b, scale = found[module]
        return torch.mm(b.float(), a.float()).mul_(-scale)

    return difference, noted


def harmful_adapter(context: BuildContext, steps: int) -> Adapter:
    """Fine-tunes the aligned model on the forget rows (prompt and `target`): a LoRA with the run's settings.

    Raises:
        InputError: there are no forget rows, or training diverges.
    """
    rows = [
        {**question(row), "response": row.get("target") or AFFIRMATIVE, "ending": "open"}
        for row in context.data.get("forget", ())
    ]
    if not rows:
        raise InputError("pseudo_unaligned needs forget rows (columns prompt and target), and there are none.")
    tokenizer = base_tokenizer(context.base, context.parent, context.revision)
    base = load_base(context.base, context.revision, context.dtype, context.device)
    return _trained(context, base, tokenizer, encode_forget(tokenizer, rows, context.max_length), steps, "unaligning")


def refusal_adapter(context: BuildContext, steps: int, max_new_tokens: int) -> tuple[Adapter, set[str]]:
    """Fine-tunes the aligned model on safety prompts with refusals, given or its own: a LoRA with the run's settings.

    Returns:
        The adapter and what to note of it, and the distinct prompts that it was trained on.

    Raises:
        InputError: there are no safety rows, the model refuses none of them, or training diverges.
    """
    tokenizer = base_tokenizer(context.base, context.parent, context.revision)
    base = load_base(context.base, context.revision, context.dtype, context.device)
    size = context.finetune.micro_batch_size
    rows, prompts = safe_rows(base, tokenizer, context.data["safety"], max_new_tokens, size, context.max_length)
    return _trained(context, base, tokenizer, rows, steps, "learning refusals"), prompts


def _trained(
    context: BuildContext, base: Any, tokenizer: Any, rows: Sequence[Encoded], steps: int, what: str
) -> Adapter:
    from peft import get_peft_model_state_dict

    model = new_adapter(base, context.lora, context.seed, context.revision)
    if context.finetune.gradient_checkpointing:
        model.enable_input_require_grads()
    batch = min(BATCH, context.finetune.batch_size)
    micro = min(batch, context.finetune.micro_batch_size)
    config = replace(context.finetune, batch_size=batch, micro_batch_size=micro, max_steps=steps)
    losses: list[float] = []

    def progress(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        context.tick(what, done, total)

    train(model, tokenizer, rows, config, context.seed, progress)
    pairs = lora_pairs({name: part.detach().cpu() for name, part in get_peft_model_state_dict(model).items()})
    adapter = model.peft_config[model.active_adapter]
    factors = {module: Factors(a, b, adapter.lora_alpha / adapter.r) for module, (a, b) in pairs.items()}
    return factors, {"rows": len(rows), "steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1]}
