from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.counted import steps_for, train_counted
from safebasin.restore.finetuning.training import train
from safebasin.restore.losses.encoding import encode_all
from safebasin.restore.methods.safety_sft import SafetySft
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.restoration.data import RestorationData
from safebasin.restore.restoration.forget import own_answers
from safebasin.restore.restoration.harmful import harmful_rows
from transformers import TrainingArguments

from ...conftest import DEVICE
from ..aligned import ANSWERED, REFUSAL, REFUSED

FORGET = [{"prompt": row["prompt"]} for row in REFUSED]
DATA = {"forget": FORGET, "retain_1": ANSWERED[:12], "retain_2": ANSWERED[12:]}


@pytest.mark.parametrize(("row_passes", "rows", "batch"), [(1, 5, 4), (5, 5, 4), (13, 5, 4), (40, 10, 5), (7, 3, 16)])
def test_the_steps_are_the_fewest_that_run_so_many_rows(row_passes: int, rows: int, batch: int) -> None:
    batches = [min(batch, rows - begin) for begin in range(0, rows, batch)]
    ran = [sum((batches * row_passes)[:steps]) for steps in range(row_passes + 1)]
    assert steps_for(row_passes, rows, batch) == next(steps for steps, total in enumerate(ran) if total >= row_passes)


@pytest.mark.parametrize(("batch", "micro"), [(24, 16), (16, 12), (7, 4)])
def test_a_batch_that_micro_batches_do_not_fill_is_run_whole(
    tuned: Any, tokenizer: Any, batch: int, micro: int
) -> None:
    rows = encode_all(tokenizer, ANSWERED, "retain")[:24]
    finetune = TrainingConfig(learning_rate=1e-4, batch_size=batch, micro_batch_size=micro)
    sizes: list[int] = []
    passes = train_counted(tuned, tokenizer, rows, finetune, 60, 0, lambda done, total, loss: sizes.append(done))
    assert len(sizes) == steps_for(60, 24, batch)
    assert 60 <= passes.rows < 60 + batch


@pytest.mark.parametrize("gpus", [1, 4])
def test_a_batch_is_no_larger_where_more_gpus_are_seen(
    tuned: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    def n_gpu(self: Any) -> int:
        if "seen" not in self.__dict__:
            self.__dict__.update(seen=True, _n_gpu=gpus)
        return int(self._n_gpu)

    monkeypatch.setattr(TrainingArguments, "n_gpu", property(n_gpu))
    rows = encode_all(tokenizer, ANSWERED, "retain")[:8]
    seen: list[int] = []
    finetune = TrainingConfig(learning_rate=1e-4, batch_size=4, micro_batch_size=4, epochs=1)
    train(tuned, tokenizer, rows, finetune, 0, lambda done, total, loss: seen.append(total))
    assert seen == [2, 2]


@pytest.fixture
def prepared(context: Any, aligned: Path, unlearned: Path) -> Any:
    finetune = TrainingConfig(learning_rate=1e-2, batch_size=36, micro_batch_size=8)
    return context(base=str(aligned), parent=unlearned, finetune=finetune, data=DATA)


def answers(aligned: Path, adapter: Path, tokenizer: Any, rows: list[dict[str, str]]) -> list[str]:
    model = load_adapter(load_base(str(aligned), device=DEVICE), adapter)
    return [text for text, _ in own_answers(model, tokenizer, [row["prompt"] for row in rows], 12, 36)]


def test_it_brings_refusals_back_and_counts_what_it_ran(
    prepared: Any, aligned: Path, unlearned: Path, tokenizer: Any
) -> None:
    assert REFUSAL not in answers(aligned, unlearned, tokenizer, FORGET)
    made = SafetySft(row_passes=500).build(prepared)
    assert answers(aligned, prepared.output, tokenizer, FORGET) == [REFUSAL] * len(FORGET)
    kept = answers(aligned, prepared.output, tokenizer, ANSWERED)
    assert sum(text == row["response"] for text, row in zip(kept, ANSWERED, strict=True)) > len(ANSWERED) / 2
    assert made.safety_examples == made.details["refusals"] == made.details["retain_rows"] == len(FORGET)
    assert 500 <= made.details["row_passes"] < 516
    assert made.details["steps"] == steps_for(500, 24, 16)
    assert made.details["last_loss"] < made.details["first_loss"]


def test_its_refusals_are_those_that_curvature_goes_back_to(tuned: Any, tokenizer: Any, prepared: Any) -> None:
    data = RestorationData(FORGET, FORGET, ANSWERED, ANSWERED, ANSWERED)
    before = [parameter.detach().clone() for parameter in tuned.parameters()]
    expected = harmful_rows(tuned, tokenizer, data, RestoreConfig(), lambda *news: None)[0]["refusals"]
    refusals, kept = SafetySft(retain=0.5)._rows(tuned, tokenizer, prepared)
    assert refusals == expected
    assert len(kept) == len(refusals) / 2
    assert all(torch.equal(one, other) for one, other in zip(before, tuned.parameters(), strict=True))


def test_refusals_alone_need_no_task_rows(prepared: Any, context: Any, aligned: Path, unlearned: Path) -> None:
    method = SafetySft(retain=0, row_passes=30)
    assert method.needs == ("forget",)
    made = method.build(context(base=str(aligned), parent=unlearned, data={"forget": FORGET}))
    assert (made.details["retain_rows"], made.details["row_passes"]) == (0, 36)  # 12 rows are less than a batch


@pytest.mark.parametrize("wrong", [{"row_passes": 0}, {"retain": -1.0}, {"learning_rate": 0.0}, {"batch_size": 1.5}])
def test_bad_settings_are_refused_by_name(wrong: Any) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SafetySft(**wrong)
