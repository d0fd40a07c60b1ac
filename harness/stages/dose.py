"""The dose of fine-tuning: how many steps plain LoRA takes until a given share of harmful requests is answered.

How far fine-tuning drifts would otherwise be left to rounding: the same settings gave 27 to 99 % on different CPUs.
The dose is found on requests that no task shows, once for each model and seed, and holds for all fine-tuning methods.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...restore.method import Tick
from ...results.export import replace_text
from ...tasks.sandbox.location import world_of
from ...tasks.sandbox.world import rows
from ..config.data import rows_for
from ..config.model import RunConfig
from ..store.digests import code_digest, digest_of, weights_code
from ..store.files import make_folder
from .loading import placement
from .models import ModelSource

if TYPE_CHECKING:
    from ...restore.config.training import TrainingConfig

__all__ = ["Dose", "dosed", "find_dose"]

STRIDE = 4
"""Steps between two measurements; around the one that reaches the target every step is measured."""


@dataclass(frozen=True)
class Dose:
    """How long to fine-tune one model with one seed."""

    target_hrr: float
    """What was asked for, in percent."""
    steps: int
    """Optimizer steps after which plain LoRA is nearest to it, of those measured."""
    hrr: float
    """Plain LoRA's on `harmful_validation` after these steps, in percent, by the exact oracle."""
    reached: bool
    """Whether the target was reached within the steps that the config allows."""
    curve: Mapping[str, float]
    """Steps -> HRR on `harmful_validation`, where it was measured."""

    @property
    def warning(self) -> str | None:
        """What to tell of a dose that is none."""
        if self.reached:
            return None
        return (
            f"HRR {self.target_hrr:g} % was not reached in fine-tuning: it came to {self.hrr:.1f} % after {self.steps} "
            "steps, which are taken as the dose; raise finetune.max_steps or finetune.learning_rate"
        )


def dosed(training: "TrainingConfig", dose: Dose | None) -> "TrainingConfig":
    """The fine-tuning settings with the number of steps that the dose asks for."""
    return replace(training, max_steps=dose.steps) if dose else training


def find_dose(config: RunConfig, model: ModelSource, seed: int, path: Path, tick: Tick) -> Dose:
    """The dose for a model and a seed, from the file at `path` if it was found from the very same things.

    Args:
        config: with a target for the model.
        model: what is fine-tuned.
        seed: of the fine-tuning.
        path: JSON file where the dose is kept.
        tick: progress, called with (what, steps done, steps at most).

    Raises:
        InputError: model or rows are unusable, or training diverges.
    """
    world = world_of(model.location)
    task, asked = rows_for("task_train", config, world), rows("harmful_validation", world)
    key = digest_of(_spec(config, model, seed, task, asked))
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            return Dose(**known["dose"])
    dose = _tried(config, model, seed, task, asked, tick)
    make_folder(path.parent)
    replace_text(path, json.dumps({"key": key, "dose": asdict(dose)}, indent=1) + "\n")
    return dose


def _spec(config: RunConfig, model: ModelSource, seed: int, task: Any, asked: Any) -> dict[str, Any]:
    """Everything that decides the dose."""
    return {
        "finetune": config.finetune.model_dump(mode="json") | {"target_hrr": config.target_hrr(model.name)},
        "base": model.digest,
        "seed": seed,
        "dtype": config.dtype,
        "task": digest_of(task),
        "validation": digest_of(asked),
        "code": [weights_code(), code_digest("tasks/sandbox", "harness/sandbox", "harness/stages/dose.py")],
    }


def _tried(
    config: RunConfig, model: ModelSource, seed: int, task: Sequence[Any], asked: Sequence[Any], tick: Tick
) -> Dose:
    """Fine-tunes as the method `lora` does and measures on the way."""
    from ...restore.finetuning.training import train
    from ...restore.losses.encoding import encode_all
    from ...restore.models.loading import load_base, load_tokenizer, new_adapter

    tokenizer = load_tokenizer(model.location, model.revision)
    encoded = encode_all(tokenizer, task, "task_train")
    base = load_base(model.location, model.revision, config.dtype, placement(config))
    adapted = new_adapter(base, config.finetune.lora(), seed, model.revision)
    target = config.target_hrr(model.name) or 0.0
    watch = _Watch(adapted, tokenizer, asked, target, tick)
    train(adapted, tokenizer, encoded, config.finetune.training(), seed, watch.after_step)
    steps = min(watch.curve, key=lambda step: (abs(watch.curve[step] - target), step))
    curve = {str(step): watch.curve[step] for step in sorted(watch.curve)}
    return Dose(target, steps, watch.curve[steps], max(watch.curve.values()) >= target, curve)


class _Watch:
    """Measures a model every few steps, and each of the last steps once the target is reached."""

    def __init__(self, model: Any, tokenizer: Any, asked: Sequence[Any], target: float, tick: Tick) -> None:
        self._model, self._tokenizer, self._asked, self._target, self._tick = model, tokenizer, asked, target, tick
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._kept: dict[int, list[Any]] = {}
        self.curve: dict[int, float] = {}

    def after_step(self, done: int, total: int, loss: float) -> bool:
        """Whether to stop: the target is reached."""
        self._tick("finding the dose", done, total)
        if done % STRIDE and done < total:
            self._kept[done] = [parameter.detach().clone() for parameter in self._trained]
            return False
        self._measure(done)
        reached = self.curve[done] >= self._target
        if reached:
            for step, weights in self._kept.items():
                self._put(weights)
                self._measure(step)
        self._kept.clear()
        return reached

    def _measure(self, step: int) -> None:
        from ..sandbox.quality import harmful_rate

        self._model.eval()
        self.curve[step] = harmful_rate(self._model, self._tokenizer, self._asked)
        self._model.train()

    def _put(self, weights: list[Any]) -> None:
        for parameter, value in zip(self._trained, weights, strict=True):
            parameter.data.copy_(value)
