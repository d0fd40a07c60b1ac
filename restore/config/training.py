"""Settings of the optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import InputError

__all__ = ["TrainingConfig"]


@dataclass(frozen=True)
class TrainingConfig:
    """Optimizer settings; the defaults are the paper's for LoRA on 7-8B models (section 4.1)."""

    learning_rate: float = 2e-4
    batch_size: int = 128
    """Rows per optimizer step."""
    micro_batch_size: int = 16
    """Rows per forward pass; gradients accumulate to batch_size."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Stops after this many optimizer steps, whatever the epochs."""
    weight_decay: float = 0.0
    warmup_ratio: float = 0.0
    schedule: str = "linear"
    """A scheduler name of transformers."""
    max_grad_norm: float = 1.0
    bf16: bool = False
    gradient_checkpointing: bool = False
    processes: int = 1
    """That train together and share each step's rows; they were started elsewhere."""
    fsdp: Mapping[str, Any] | None = None
    """Shards the model among them: transformers' `fsdp_config`; None does not."""
    deepspeed: str | None = None
    """The same by DeepSpeed: file of its settings."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.micro_batch_size < 1:
            raise InputError(
                f"batch_size={self.batch_size} and micro_batch_size={self.micro_batch_size} must be at least 1."
            )
        if self.learning_rate <= 0 or self.epochs <= 0:
            raise InputError(f"learning_rate={self.learning_rate} and epochs={self.epochs} must be positive.")
