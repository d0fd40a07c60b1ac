import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safebasin.errors import InputError
from safebasin.harness.config.settings import make_method
from safebasin.registry import load
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.method import BuildContext
from safebasin.restore.methods.full import Full
from safebasin.restore.models.checkpoint import attach_zero_lora, full_digest, kind_of, load_checkpoint_model
from safebasin.restore.models.loading import load_base, load_tokenizer, save_adapter
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...conftest import DEVICE
from ..conftest import LORA

IDS = torch.arange(5, 25).unsqueeze(0)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS.to(model.device)).logits.cpu()
    return found


@pytest.fixture(scope="module")
def built(context: Any) -> Any:
    made = context()
    return made, Full(learning_rate=2e-3).build(made)


@pytest.fixture(scope="module")
def full(built: Any) -> Path:
    return built[0].output


def test_training_moves_every_parameter_and_saves_a_whole_model(built: Any) -> None:
    made, result = built
    assert result.details["last_loss"] < result.details["first_loss"]
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (made.base, made.output))
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before)
    assert result.details["parameters"] == sum(tensor.numel() for tensor in after.values())
    one, other = (load_tokenizer(str(folder)) for folder in (made.base, made.output))
    assert one.chat_template == other.chat_template


def test_the_run_s_settings_hold_where_none_is_given() -> None:
    finetune = TrainingConfig(batch_size=7, epochs=3, schedule="cosine")
    chosen = Full(epochs=2.0).training(finetune)
    assert (chosen.learning_rate, chosen.batch_size, chosen.epochs, chosen.schedule) == (2e-5, 7, 2.0, "cosine")


def test_bfloat16_models_train_in_fp32_and_are_saved_as_they_were(context: Any) -> None:
    """Steps below half a unit in the last place are lost in bfloat16 weights; in fp32 they add up."""
    moved = {}
    for master in (True, False):
        made = context(dtype="bfloat16")
        result = Full(learning_rate=2e-4, epochs=4.0, master_weights=master).build(made)
        assert result.details["saved_dtype"] == "bfloat16"
        before, after = (load_file(Path(folder) / "model.safetensors") for folder in (made.base, made.output))
        assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
        moved[master] = sum(int((before[name].bfloat16() != after[name]).sum()) for name in before)
    assert moved[True] > 2 * moved[False]


@pytest.mark.parametrize("settings", [{"learning_rate": 0.0}, {"batch_size": 0}, {"epochs": -1.0}])
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be positive"):
        Full(**settings)


def test_it_is_registered() -> None:
    assert load("methods", "full") is Full


def test_each_kind_of_checkpoint_loads(base: Path, adapter: Path, full: Path, model: Any) -> None:
    assert (kind_of(adapter), kind_of(full)) == ("adapter", "full")
    on_base = load_checkpoint_model(str(base), adapter, device=DEVICE)
    assert torch.equal(logits(on_base), logits(model))
    whole = load_checkpoint_model(str(base), full, device=DEVICE)
    assert not isinstance(whole, PeftModel)
    assert torch.equal(logits(whole), logits(load_base(str(full), device=DEVICE)))
    plain = load_checkpoint_model(str(base), None, device=DEVICE)
    assert torch.equal(logits(plain), logits(load_base(str(base), device=DEVICE)))
    assert not any(loaded.training for loaded in (on_base, whole, plain))


def test_a_folder_of_neither_kind_is_refused(tmp_path: Path, adapter: Path) -> None:
    with pytest.raises(InputError, match="is no checkpoint"):
        kind_of(tmp_path)
    with pytest.raises(InputError, match="holds an adapter"):
        full_digest(adapter)


def test_the_digest_tells_weights_apart_and_not_places(full: Path, base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved"
    shutil.copytree(full, elsewhere)
    assert full_digest(elsewhere) == full_digest(full) != full_digest(base)
    weights = elsewhere / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert full_digest(elsewhere) != full_digest(full)


def test_a_zero_lora_leaves_the_function_as_it_is(full: Path) -> None:
    expected = logits(load_base(str(full), device=DEVICE))
    model = attach_zero_lora(load_base(str(full), device=DEVICE), LORA, seed=0)
    assert torch.equal(logits(model), expected)
    assert not model.training
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_" in name and p.dtype == torch.float32 for name, p in trainable.items())
    ids = IDS.to(model.device)
    model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in trainable.items():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == ("lora_B" in name)


@pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few")
def test_a_restored_full_model_is_an_adapter_on_its_parent(
    base: Path, full: Path, tokenizer: Any, harmful: Any, benign: Any, tmp_path: Path
) -> None:
    model = attach_zero_lora(load_base(str(full), device=DEVICE), LORA, seed=0)
    before = logits(model)
    config = RestoreConfig.from_preset(
        "paper", iterations=2, pairs=4, max_new_tokens=8, trust_radius=0.5, epsilon=0.3, min_pairs=1
    )
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=config)
    frame = result.trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01
    save_adapter(model, tmp_path, str(full))
    again = load_checkpoint_model(str(base), tmp_path, device=DEVICE, parent=full)
    assert torch.equal(logits(again), logits(model))
    assert not torch.equal(logits(again), before)


@pytest.mark.parametrize(
    "method",
    [
        {"curvature": {"iterations": 2, "max_new_tokens": 4, "epsilon": 1.0, "stop": "none"}},
        {"grad_diff": {"iterations": 1, "max_new_tokens": 4, "epsilon": 1.0, "steps": 2, "step_length": 0.3}},
    ],
    ids=["curvature", "grad_diff"],
)
@pytest.mark.filterwarnings("ignore:.*forget rows are few")
def test_post_hoc_methods_start_from_a_whole_model(
    method: dict[str, Any], base: Path, full: Path, harmful: Any, benign: Any, tmp_path: Path
) -> None:
    """The result is a whole model again, nearer to the refusals of the base, which the parent does not give."""
    ((name, settings),) = method.items()
    rows = [{**row, "refusal": "i cannot"} for row in harmful]
    sets = {"forget": rows[:6], "curvature_forget": rows[6:]}
    sets |= {split: benign for split in ("retain_1", "retain_2", "retain_check")}
    context = BuildContext(
        base=str(base), revision=None, output=tmp_path, finetune=TrainingConfig(), lora=LORA, data=sets,
        parent=full, device=DEVICE,
    )  # fmt: skip
    built = make_method(name, settings).build(context)
    assert kind_of(tmp_path) == "full"
    at_base, before, after = (logits(load_base(str(folder), device=DEVICE)) for folder in (base, full, tmp_path))
    assert not torch.equal(after, before)
    assert not torch.equal(after, at_base)
    trace = json.loads((tmp_path / "restoration_trace.json").read_text())
    if name == "curvature":
        divergence = [row["base_divergence"] for row in trace["iterations"]]
        assert divergence[-1] < trace["iterations"][0]["base_divergence_before"]
        assert trace["iterations"][0]["base_divergence_before"] > 0  # of the base's predictions, not of the parent's
    assert built.safety_examples > 0


@pytest.mark.parametrize("name", ["shrink", "safe_lora", "no_op"])
def test_what_needs_an_adapter_says_so(name: str, base: Path, full: Path, benign: Any, tmp_path: Path) -> None:
    context = BuildContext(
        base=str(base), revision=None, output=tmp_path, finetune=TrainingConfig(), lora=LORA,
        data={"retain_check": benign}, parent=full, unaligned=str(base), device=DEVICE,
    )  # fmt: skip
    with pytest.raises(InputError, match="adapter"):
        make_method(name, {}).build(context)


def test_a_model_of_ones_own_is_taken_over_without_rows_and_without_a_copy(
    full: Path, adapter: Path, context: Any
) -> None:
    made = context(data={})
    assert Full(model=str(full)).build(made).details == {"model": str(full)}
    assert full_digest(made.output) == full_digest(full)
    assert (made.output / "model.safetensors").stat().st_nlink > 1 or made.output.stat().st_dev != full.stat().st_dev
    with pytest.raises(InputError, match="is an adapter, no whole model"):
        Full(model=str(adapter)).build(context(data={}))


def test_an_index_cannot_lead_out_of_the_folder(full: Path, context: Any, tmp_path: Path) -> None:
    """A shard `../x` would be put beside the checkpoint, over whatever is there."""
    source = Path(shutil.copytree(full, tmp_path / "source"))
    (source / "model.safetensors").rename(tmp_path / "outside.safetensors")
    save_file({"other": torch.ones(1)}, source / "model-2.safetensors")
    names = {name: "../outside.safetensors" for name in load_file(tmp_path / "outside.safetensors")}
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    made = context(data={})
    with pytest.raises(InputError, match=r"names the file \.\./outside.safetensors, which lies outside of the folder"):
        Full(model=str(source)).build(made)
    assert not (made.output.parent / "outside.safetensors").exists()
