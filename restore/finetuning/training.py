"""Supervised fine-tuning with a response-only loss: the training loop that every method shares."""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from ...errors import InputError
from ..config.training import TrainingConfig
from ..losses.encoding import Encoded, _pad, pad_id_of

__all__ = ["Progress", "train"]

Progress = Callable[[int, int, float], bool | None]
"""Called after each optimizer step with (steps done, steps in all, training loss in nats per token); True ends it."""


class _Watch(TrainerCallback):
    """Reports progress and stops the run at the first loss that is not finite."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not torch.isfinite(torch.tensor([loss, float(logs.get("grad_norm", 0.0))])).all():
            raise InputError(
                f"Training diverged at step {state.global_step}: loss {loss:g}, gradient norm {logs.get('grad_norm')}. "
                f"Lower learning_rate (now {args.learning_rate:g}) or look for rows with corrupt text."
            )
        if self.progress and self.progress(state.global_step, state.max_steps, loss):
            control.should_training_stop = True


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Encoded],
    config: TrainingConfig,
    seed: int,
    progress: Progress | None = None,
    trainer_class: type[Trainer] = Trainer,
) -> None:
    """Trains the parameters of `model` that require gradients, in place, with AdamW.

    Args:
        model: any causal LM or PEFT model; left in eval mode.
        tokenizer: only its pad id is used.
        rows: encoded training rows.
        config: optimizer settings. Where the model is sharded among processes, its whole weights are afterwards in
            `model.gathered` of the first of them, and of the others an empty mapping.
        seed: decides the order of rows (and dropout, where the model has any).
        progress: called after every step; ends the training by returning True.
        trainer_class: a method's own Trainer.

    Raises:
        InputError: the loss or the gradient norm is not finite.
    """
    set_seed(seed)
    pad = pad_id_of(tokenizer)
    share = max(1, config.batch_size // config.processes)
    micro = next(size for size in range(min(config.micro_batch_size, share), 0, -1) if share % size == 0)
    with TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=str(Path(scratch)),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=share // micro,
            num_train_epochs=config.epochs,
            max_steps=config.max_steps or -1,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            warmup_steps=config.warmup_ratio,
            lr_scheduler_type=config.schedule,
            max_grad_norm=config.max_grad_norm,
            bf16=config.bf16,
            gradient_checkpointing=config.gradient_checkpointing,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            seed=seed,
            data_seed=seed,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=False,
            **_together(config),
        )
        if arguments.n_gpu > 1:  # the trainer would give each of the visible GPUs a micro-batch: other, larger batches
            arguments._n_gpu = 1
        trainer = trainer_class(
            model=model,
            args=arguments,
            train_dataset=list(rows),
            data_collator=lambda part: _pad(part, pad, torch.device("cpu")),
            callbacks=[_Watch(progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        if config.fsdp is not None or config.deepspeed is not None:
            kept: Any = model
            kept.gathered = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    model.eval()


def _together(config: TrainingConfig) -> dict[str, Any]:
    """What the trainer is told of processes that train together."""
    told: dict[str, Any] = {}
    if config.processes > 1:
        told["ddp_find_unused_parameters"] = False
        if not torch.cuda.is_available():
            told["ddp_backend"] = "gloo"
    if config.fsdp is not None:
        told |= {"fsdp": True, "fsdp_config": dict(config.fsdp)}
    if config.deepspeed is not None:
        told["deepspeed"] = config.deepspeed
    return told
