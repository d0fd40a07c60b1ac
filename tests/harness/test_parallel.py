"""One model on several devices: what the libraries are given, and two processes that fine-tune as one does."""

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safebasin.errors import InputError
from safebasin.harness.commands.dry_run import rehearse_run
from safebasin.harness.config.load import check_config, load_config
from safebasin.harness.config.model import RunConfig
from safebasin.harness.config.parallel import ParallelConfig
from safebasin.harness.engines.vllm_settings import engine_settings
from safebasin.harness.stages.costs import Size
from safebasin.harness.stages.loading import placement
from safebasin.harness.stages.ranks import build_in_ranks
from safebasin.harness.stages.spreading import spread_lines
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning import training
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.lora import Lora
from safebasin.restore.models import loading
from safebasin.restore.models.devices import Spread, single
from safetensors.torch import load_file

from ..conftest import TinyChatModel
from .conftest import ROOT

LARGE = ROOT / "configs" / "llama70b.yaml"


def given(**changes: Any) -> dict[str, Any]:
    return {
        "name": "x", "models": ["sandbox"], "methods": ["base", "lora"], "finetune": {"dataset": "sandbox_task"},
        "tasks": {"safety": ["sandbox_hrr"]}, "judges": ["keywords"], **changes,
    }  # fmt: skip


def config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate_json(json.dumps(given(**changes)))


def test_where_it_is_spread_is_in_no_digest() -> None:
    assert config().digest == config(parallel={"tensor": 8}, executor="ray", resources={"gpus": 8}).digest
    assert config().digest != config(batch_size=3).digest


def test_vllm_is_told_among_how_many_gpus(tiny_chat_model: TinyChatModel) -> None:
    folder = str(tiny_chat_model())
    tokenizer = loading.load_tokenizer(folder)
    alone = engine_settings(folder, tokenizer, "float32", ParallelConfig())
    assert not {"tensor_parallel_size", "pipeline_parallel_size"} & set(alone)
    divided = engine_settings(folder, tokenizer, "float32", ParallelConfig(tensor=4, pipeline=2))
    assert divided == alone | {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}


def test_transformers_is_told_how_to_spread(tiny_chat_model: TinyChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    parallel = {"device_map": "balanced", "max_memory": {"0": "70GiB", "cpu": "200GiB"}}
    spread = placement(config(parallel=parallel))
    assert isinstance(spread, Spread)
    assert spread.settings == {"device_map": "balanced", "max_memory": {0: "70GiB", "cpu": "200GiB"}}
    assert placement(config(device="cpu")) == "cpu"
    assert single(spread) == ("cuda" if torch.cuda.is_available() else "cpu")

    told: list[dict[str, Any]] = []
    real = loading.load_whole
    monkeypatch.setattr(loading, "load_whole", lambda *names, **rest: told.append(rest) or real(*names, **rest))
    model: Any = loading.load_base(str(tiny_chat_model()), device=Spread("auto"))
    assert told[0]["device_map"] == "auto"
    assert {weight.device.type for weight in model.parameters()} == {single(None)}
    assert not model.training


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"fsdp": {"version": 2}}, {"fsdp": True, "fsdp_config": {"version": 2}}),
        ({"fsdp": {}}, {"fsdp": True, "fsdp_config": {}}),
        ({"deepspeed": "zero3.json"}, {"deepspeed": "zero3.json"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_the_trainer_is_told_of_sharding(
    settings: dict[str, Any], told: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tiny_chat_model: TinyChatModel
) -> None:
    class Told(Exception):
        pass

    def arguments(**given: Any) -> Any:
        raise Told(given)

    monkeypatch.setattr(training, "TrainingArguments", arguments)
    tokenizer: Any = type("Tokenizer", (), {"pad_token_id": 0, "eos_token_id": 0})()
    how = TrainingConfig(batch_size=32, micro_batch_size=4, processes=4, **settings)
    with pytest.raises(Told) as caught:
        training.train(torch.nn.Linear(1, 1), tokenizer, [], how, 0)  # type: ignore[arg-type]
    (found,) = caught.value.args
    assert found["per_device_train_batch_size"] == 4
    assert found["gradient_accumulation_steps"] == 2, "32 rows are 4 processes times 4 rows, twice"
    assert {key: found[key] for key in ("fsdp", "fsdp_config", "deepspeed") if key in found} == told


def test_the_whole_of_a_sharded_model_is_what_is_saved() -> None:
    model = torch.nn.Linear(1, 1)
    assert loading.gathered_of(model) == {}
    model.gathered = {"weight": torch.ones(1)}  # type: ignore[assignment]
    assert loading.gathered_of(model) == {"state_dict": model.gathered, "is_main_process": True}
    model.gathered = {}  # type: ignore[assignment]
    assert not loading.gathered_of(model)["is_main_process"]


def context(base: Path, output: Path, processes: int) -> BuildContext:
    rows = [{"prompt": f"say {i}", "response": "yes" * (i % 3 + 1)} for i in range(8)]
    tuning = TrainingConfig(batch_size=4, micro_batch_size=2, max_steps=2, processes=processes, learning_rate=1e-2)
    output.mkdir()
    return BuildContext(
        str(base), None, output, tuning, {"rank": 2, "alpha": 2}, {"task_train": rows}, dtype="float32", device="cpu"
    )  # fmt: skip


def test_two_processes_fine_tune_as_one_does(tiny_chat_model: TinyChatModel, tmp_path: Path) -> None:
    alone, together = (context(tiny_chat_model(), tmp_path / name, n) for name, n in (("alone", 1), ("together", 2)))
    heard: list[tuple[Any, ...]] = []
    one = Lora().build(alone)
    both = build_in_ranks(
        Lora(), replace(together, tick=lambda *how: heard.append(how)), config(device="cpu", parallel={"processes": 2})
    )
    assert heard == [("training", 1, 2), ("training", 2, 2)]
    assert both.details["steps"] == one.details["steps"] == 2
    assert both.details["last_loss"] == pytest.approx(one.details["last_loss"], rel=1e-4)
    weights = [load_file(folder / "adapter_model.safetensors") for folder in (alone.output, together.output)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5)


def test_what_is_wrong_in_one_of_the_processes_is_told(tiny_chat_model: TinyChatModel, tmp_path: Path) -> None:
    broken = replace(context(tiny_chat_model(), tmp_path / "out", 2), data={"task_train": []})
    with pytest.raises(InputError) as alone:
        Lora().build(broken)
    with pytest.raises(InputError) as together:
        build_in_ranks(Lora(), broken, config(device="cpu", parallel={"processes": 2}))
    assert str(together.value) == str(alone.value)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"parallel": {"processes": 3}}, "parallel.processes: batch_size=128 is no multiple"),
        ({"parallel": {"fsdp": {}, "deepspeed": "x"}}, "two ways of the same"),
        ({"parallel": {"max_memory": {"0": "1GiB"}}}, "max_memory is of device_map"),
        ({"parallel": {"deepspeed": "/nowhere.json"}}, "parallel.deepspeed: there is no file"),
        ({"parallel": {"tensors": 2}}, "Did you mean 'tensor'"),
        ({"executor": "ray", "resources": {"gpus": 2}, "parallel": {"tensor": 4}}, "parallel takes 4 GPUs"),
        ({"executor": "slurm", "resources": {"gpus": 0.5}}, "Slurm gives whole GPUs"),
        ({"executor": "kubernetes"}, "executor: unknown value"),
    ],
)
def test_what_does_not_fit_is_told(changes: dict[str, Any], fault: str) -> None:
    _, faults = check_config(given(**changes))
    assert any(fault in str(one) for one in faults), faults


def test_a_70b_plan_tells_what_each_device_holds() -> None:
    """141 GB in bfloat16, on eight GPUs of 80 GB."""
    shown = StringIO()
    rehearse_run(load_config(LARGE), Console(file=shown, width=200), "h100")
    said = shown.getvalue()
    for what in ("answering", "fine-tuning lora", "other methods"):
        assert re.search(rf"Llama-3.1-70B-Instruct, {what}: 17.6 GB on each of 8 devices", said), said
    assert "more than the 80 GB" not in said
    shown = StringIO()
    overrides = ["parallel.tensor=1", "parallel.fsdp=null", "methods=[base, lora, full]"]
    rehearse_run(load_config(LARGE, overrides), Console(file=shown, width=200), "h100")
    said = shown.getvalue()
    assert "answering: 141.1 GB on one device" in said
    assert "fine-tuning full: 1128.9 GB on one device" in said
    assert "that is more than the 80 GB of one: raise parallel.tensor" in said


def test_what_each_device_holds_is_counted_by_hand() -> None:
    size = Size(10**9, 2 * 10**9, 10)
    chosen = config(methods=["base", "full", "shrink"], parallel={"fsdp": {}, "processes": 4, "device_map": "auto"},
                    resources={"gpus": 2})  # fmt: skip
    lines = list(spread_lines("m", size, chosen, "hf", None))
    assert lines == [
        "  m, answering: 1.0 GB on each of 2 devices",
        "  m, fine-tuning lora: 0.5 GB on each of 4 devices",
        "  m, fine-tuning full: 4.0 GB on each of 4 devices",
        "  m, other methods: 1.0 GB on each of 2 devices",
    ]
