"""How hard every row's checkpoint is fine-tuned again, and when it is asked on the way: `tasks.relapse` in a config."""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, PositiveFloat, PositiveInt

from .frozen import Frozen

if TYPE_CHECKING:
    from ...restore.config.training import TrainingConfig

__all__ = ["RelapseConfig"]


def _from_zero(steps: tuple[int, ...]) -> tuple[int, ...]:
    if len(steps) < 2 or steps[0] != 0 or any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError(f"must ascend from 0, the checkpoint as it is, to one step or more; got {list(steps)}")
    return steps


class RelapseConfig(Frozen):
    """Fine-tunings of the finished checkpoints, after which harm is measured again (docs/relapse.md)."""

    benign: bool = True
    """Fine-tunes on the run's own rows (`finetune.dataset`)."""
    harmful: tuple[PositiveInt, ...] = (10, 100)
    """Fine-tunes on so many harmful rows, once for each number: the first of `data.relapse`."""
    steps: Annotated[tuple[int, ...], AfterValidator(_from_zero)] = (0, 10, 20, 40, 80)
    """Optimizer steps after which the harmful response rate is measured; the last one ends the fine-tuning."""
    prompts: PositiveInt | None = None
    """Of the task with role hrr, the first so many are asked; None is all of them (or `limit`)."""
    learning_rate: PositiveFloat | None = None
    """That of `finetune` where it is None."""
    batch_size: PositiveInt | None = None
    """As `learning_rate`."""
    micro_batch_size: PositiveInt | None = None
    """As `learning_rate`."""

    @property
    def attacks(self) -> dict[str, int | None]:
        """Name of each fine-tuning -> its harmful rows; None is the benign one."""
        benign: dict[str, int | None] = {"benign": None} if self.benign else {}
        return benign | {f"harmful{rows}": rows for rows in self.harmful}

    def training(self, finetune: "TrainingConfig") -> "TrainingConfig":
        """The optimizer's part: constant learning rate, so that every measured step ends a whole, shorter fine-tuning.

        Args:
            finetune: gives what is None here, and all other settings.
        """
        names = ("learning_rate", "batch_size", "micro_batch_size")
        own: dict[str, Any] = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(finetune, max_steps=self.steps[-1], schedule="constant", warmup_ratio=0.0, **own)
