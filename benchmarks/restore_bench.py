"""What the benchmarks of the restoration share: a random model with an adapter, and a restoration of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.label_logits import LabelLogits, LabelModel, MicroBatch
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.restoration.aim import make_aim
from safebasin.restore.restoration.loop import Trace, restore_parameters
from transformers import AutoModelForCausalLM, PretrainedConfig

SETS = ("forget", "curvature_forget", "retain_1", "retain_2", "retain_check")
PAD = 0
Tick = Callable[[str, int, int], None]


def random_adapted(config: PretrainedConfig, device: str, dtype: torch.dtype) -> Any:
    """A PEFT model with random weights made on the device: LoRA of rank 32 on queries and values, away from zero."""
    torch.manual_seed(0)
    with torch.device(device):
        base = AutoModelForCausalLM.from_config(config, dtype=dtype)
        lora = LoraConfig(
            r=32, lora_alpha=64, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
        )
        model = get_peft_model(base, lora)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.data.mul_(0.1)
    return model.eval()


@dataclass(frozen=True)
class Restoration:
    """A restoration that can be run again and again from the same parameters."""

    losses: Losses
    config: RestoreConfig

    def run(self, tick: Tick = lambda *_: None) -> Trace:
        """All of it after the answers: rows to tensors, curvature, updates, bound."""
        check = self.losses.on("retain_check")
        with self.losses.parameters.preserved():
            aim = make_aim(self.losses, self.config)
            return restore_parameters(self.losses.parameters, aim, check, self.config, tick)


@contextmanager
def noted_passes() -> Iterator[list[tuple[MicroBatch, bool]]]:
    """Within the block, lists the micro-batches of all forward passes, and whether a backward pass follows."""
    made: list[tuple[MicroBatch, bool]] = []
    run = LabelModel.__call__

    def noting(self: LabelModel, batch: MicroBatch) -> LabelLogits:
        made.append((batch, torch.is_grad_enabled()))
        return run(self, batch)

    LabelModel.__call__ = noting  # type: ignore[method-assign]
    try:
        yield made
    finally:
        LabelModel.__call__ = run  # type: ignore[method-assign]


def fixed_rows(count: int, length: int, prompt: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Random rows of `length` tokens, the first `prompt` of which carry no loss."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (count, length), generator=generator).tolist()
    return [Encoded(tuple(row), prompt) for row in ids]


def uneven_rows(count: int, longest: int, vocabulary: int, seed: int) -> list[Encoded]:
    """Random rows whose prompts and answers are log-normally long (medians 16 and 24 tokens), cut at `longest`."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for row in fixed_rows(count, longest, 1, vocabulary, seed):
        spread = torch.randn(2, generator=generator) * torch.tensor([0.6, 0.9])
        prompt, answer = spread.exp() * torch.tensor([16, 24])
        start = min(int(prompt) + 1, longest // 2)
        made.append(Encoded(row.ids[: min(start + int(answer) + 1, longest)], start))
    return made
