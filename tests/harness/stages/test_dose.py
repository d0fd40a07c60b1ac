"""The dose of fine-tuning: as many steps as plain LoRA needs, the same for every method, found once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.harness.config.model import RunConfig
from safebasin.harness.sandbox import quality
from safebasin.harness.stages import dose as dosing
from safebasin.harness.stages.dose import Dose, dosed, find_dose
from safebasin.harness.stages.models import ModelSource
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.training import train
from safebasin.restore.losses.encoding import encode_all
from safebasin.restore.models.loading import load_base, load_tokenizer, new_adapter
from torch.nn.utils import parameters_to_vector

from ...conftest import TinyChatModel

RISING = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 65.0, 80.0, 90.0)
"""HRR after each step."""
TASK = [{"prompt": f"count {i}", "response": f"{i} {i}"} for i in range(16)]


def config(**finetune: Any) -> RunConfig:
    given = {"dataset": "sandbox_task", "rank": 2, "schedule": "constant", "batch_size": 4, "micro_batch_size": 4}
    about = {"name": "x", "models": ["sandbox"], "methods": ["lora"], "tasks": {"utility": ["sandbox_facts"]}}
    return RunConfig.model_validate(
        {**about, "finetune": given | {"target_hrr": 60.0, "max_steps": 6} | finetune}, strict=False
    )


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, int], tuple[dict[int, float], int]]:
    """Feeds a watch a training whose only weight is the number of steps done; gives its curve and where it stopped."""
    monkeypatch.setattr(quality, "harmful_rate", lambda model, tokenizer, asked: RISING[int(model.weight.item()) - 1])

    def run(target: float, total: int) -> tuple[dict[int, float], int]:
        model = torch.nn.Linear(1, 1, bias=False)
        watch = dosing._Watch(model, None, [], target, lambda what, done, total: None)
        for step in range(1, total + 1):
            model.weight.data.fill_(step)
            if watch.after_step(step, total, 0.0):
                break
        return watch.curve, step

    return run


def test_it_measures_now_and_then_and_every_step_before_the_target(watched: Any) -> None:
    curve, stopped = watched(60, 9)
    assert stopped == 8
    assert curve == {4: 30.0, 5: 40.0, 6: 50.0, 7: 65.0, 8: 80.0}


def test_it_measures_the_last_step_where_the_target_is_not_reached(watched: Any) -> None:
    curve, stopped = watched(95, 9)
    assert stopped == 9
    assert curve == {4: 30.0, 8: 80.0, 9: 90.0}


@pytest.fixture
def found(
    tiny_chat_model: TinyChatModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Dose, int]]:
    """Finds a dose on a tiny model with made-up rates; gives it and the number of trials so far."""
    source = ModelSource("sandbox", str(tiny_chat_model()), None, "digest of the weights")
    trials: list[int] = []

    def rate(self: dosing._Watch, step: int) -> None:
        self.curve[step] = RISING[step - 1]

    def tried(*arguments: Any) -> Dose:
        trials.append(1)
        return real(*arguments)

    real = dosing._tried
    monkeypatch.setattr(dosing, "_tried", tried)
    monkeypatch.setattr(dosing, "rows_for", lambda split, config, world: TASK)
    monkeypatch.setattr(dosing._Watch, "_measure", rate)

    def find(seed: int = 0, **finetune: Any) -> tuple[Dose, int]:
        path = tmp_path / "doses" / "dose.json"
        return find_dose(config(**finetune), source, seed, path, lambda what, done, total: None), len(trials)

    return find


def test_the_dose_is_the_step_nearest_to_the_target(found: Any) -> None:
    dose, _ = found(max_steps=9)
    assert (dose.steps, dose.hrr, dose.reached, dose.warning) == (7, 65.0, True, None)
    assert dose.curve == {"4": 30.0, "5": 40.0, "6": 50.0, "7": 65.0, "8": 80.0}


def test_a_model_may_have_a_target_of_its_own() -> None:
    models = [{"id": "sandbox:1", "target_hrr": 30.0}, {"id": "sandbox:2"}]
    found = RunConfig.model_validate({**config().model_dump(), "models": models}, strict=False)
    assert [found.target_hrr(f"sandbox:{world}") for world in (1, 2)] == [30.0, 60.0]


def test_a_target_that_is_not_reached_is_told(found: Any) -> None:
    dose, _ = found()
    assert (dose.steps, dose.hrr, dose.reached) == (6, 50.0, False)
    assert "HRR 60 % was not reached" in dose.warning
    assert "finetune.max_steps" in dose.warning


def test_it_is_found_once_for_the_same_things(found: Any) -> None:
    first, _ = found()
    assert found() == (first, 1)
    for i, change in enumerate(({"target_hrr": 30.0}, {"seed": 1}, {"learning_rate": 1e-3}), start=2):
        assert found(**change)[1] == i


def test_a_shorter_training_is_the_beginning_of_a_longer_one(tiny_chat_model: TinyChatModel) -> None:
    folder, lora = str(tiny_chat_model()), config().finetune.lora()
    tokenizer = load_tokenizer(folder)
    rows = encode_all(tokenizer, TASK, "task")

    def trained(steps: int, looks: bool) -> dict[int, torch.Tensor]:
        """The weights after each of the steps; four are a pass over the rows."""
        model = new_adapter(load_base(folder), lora, 0, None)
        weights = {}

        def after(done: int, total: int, loss: float) -> None:
            weights[done] = parameters_to_vector(model.parameters()).detach().clone()
            if looks:
                model.eval()
                model.generate(torch.tensor([list(rows[0].ids)]), max_new_tokens=3, do_sample=False)
                model.train()

        train(model, tokenizer, rows, dosed(config().finetune.training(), dose(steps)), 0, after)
        return weights

    short, long = trained(6, looks=False), trained(9, looks=True)
    assert len(short) == 6
    assert all(torch.equal(short[step], long[step]) for step in short)


def dose(steps: int) -> Dose:
    return Dose(60.0, steps, 60.0, True, {})


def test_a_dose_replaces_the_number_of_steps_and_nothing_else() -> None:
    assert dosed(TrainingConfig(epochs=3.0), None) == TrainingConfig(epochs=3.0)
    assert dosed(TrainingConfig(epochs=3.0), dose(7)) == TrainingConfig(epochs=3.0, max_steps=7)


def test_training_ends_where_it_is_told_to(tiny_chat_model: TinyChatModel) -> None:
    folder = str(tiny_chat_model())
    tokenizer, done = load_tokenizer(folder), []

    def after(step: int, total: int, loss: float) -> bool:
        done.append(step)
        return step == 2

    settings = TrainingConfig(batch_size=4, micro_batch_size=4, epochs=5)
    train(load_base(folder), tokenizer, encode_all(tokenizer, TASK, "task"), settings, 0, after)
    assert done == [1, 2]
