"""The dose of fine-tuning: as many steps as plain LoRA needs, the same for every method, found once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness import dose as dosing
from safebasin.harness.config import check_config
from safebasin.harness.config_model import RunConfig
from safebasin.harness.dose import Dose, dosed, find_dose
from safebasin.harness.models import ModelSource
from safebasin.restore.encoding import Encoded
from safebasin.restore.loading import load_base, load_tokenizer, new_adapter
from safebasin.restore.training import TrainingConfig, train
from torch.nn.utils import parameters_to_vector

from ..conftest import TinyChatModel

LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
RISING = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]
"""HRR after each of eight steps."""


def config(target: float = 60.0, **finetune: Any) -> RunConfig:
    given = {"dataset": "sandbox_task", "rank": 2, "schedule": "constant", "batch_size": 4, "micro_batch_size": 4}
    return RunConfig.model_validate(
        {
            "name": "x",
            "models": ["sandbox"],
            "methods": ["lora"],
            "tasks": {"utility": ["sandbox_facts"]},
            "finetune": {**given, "target_hrr": target, "max_steps": 8, **finetune},
        },
        strict=False,
    )


@pytest.fixture
def source(tiny_chat_model: TinyChatModel) -> ModelSource:
    return ModelSource("tiny", str(tiny_chat_model()), None, "digest of the weights")


@pytest.fixture
def find(source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dose]:
    """Finds a dose on a tiny model whose HRR after each step is given."""
    tasks = [{"prompt": f"count {i}", "response": f"{i}"} for i in range(16)]
    monkeypatch.setattr(dosing, "rows_for", lambda split, config, world: tasks)

    def found(given: RunConfig, rates: list[float] = RISING, seed: int = 0) -> Dose:
        from safebasin.harness.sandbox import quality

        steps: list[int] = []
        weights: dict[Any, float] = {}

        def rate(model: Any, tokenizer: Any, asked: Any) -> float:
            """By the weights, so that those of an earlier step are known again when they are put back."""
            return weights[parameters_to_vector(model.parameters()).sum().item()]

        class Watch(dosing._Watch):
            def after_step(self, done: int, total: int, loss: float) -> bool:
                steps.append(done)
                weights[parameters_to_vector(self._model.parameters()).sum().item()] = rates[done - 1]
                return super().after_step(done, total, loss)

        monkeypatch.setattr(quality, "harmful_rate", rate)
        monkeypatch.setattr(dosing, "_Watch", Watch)
        dose = find_dose(given, source, seed, tmp_path / "dose.json", lambda what, done, total: None)
        found.steps = steps  # type: ignore[attr-defined]
        return dose

    return found
