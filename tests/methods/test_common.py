"""What must hold for every method, on every architecture: one suite, one entry in `cases.py` for a method."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safebasin.errors import InputError
from safebasin.harness.config.data import SPLITS
from safebasin.harness.config.settings import make_method
from safebasin.registry import available
from safebasin.restore.models.checkpoint import kind_of, load_checkpoint_model
from safebasin.restore.models.loading import load_adapter, load_base
from torch import Tensor
from transformers import AutoModelForCausalLM

from .cases import CASES, Case
from .conftest import LORA, Build, World, build_in, context_of

IDS = torch.arange(5, 53).view(2, 24)  # longer than the Mistral's window
pytestmark = pytest.mark.filterwarnings("ignore:.*few", "ignore:.*curvature pairs")


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(input_ids=IDS).logits
    return found


def plain_base(world: World) -> Any:
    return AutoModelForCausalLM.from_pretrained(world.base, dtype=torch.float32)


def own(built: Build) -> Tensor:
    """Logits of the checkpoint as safebasin itself loads it."""
    return logits(load_checkpoint_model(str(built.world.base), built.output, device="cpu"))


def as_users_load(built: Build, case: Case) -> Any:
    """The checkpoint as a user without safebasin loads it."""
    if case.whole_model:
        return AutoModelForCausalLM.from_pretrained(built.output, dtype=torch.float32)
    return PeftModel.from_pretrained(plain_base(built.world), built.output)


def test_every_registered_method_is_tried() -> None:
    assert {case.method for case in CASES} == set(available("methods"))
    assert len({str(case) for case in CASES}) == len(CASES)


def test_the_checkpoint_is_an_ordinary_folder(built: Build, case: Case) -> None:
    assert kind_of(built.output) == ("full" if case.whole_model else "adapter")
    names = {file.name for file in built.output.iterdir()}
    if case.whole_model:
        assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
        return
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    assert not [name for name in names if name.startswith(("model", "tokenizer"))]
    config = json.loads((built.output / "adapter_config.json").read_text())
    assert (config["peft_type"], config["task_type"]) == ("LORA", "CAUSAL_LM")
    assert config["base_model_name_or_path"] == str(built.world.base)
    assert set(config["target_modules"]) == set(LORA["target_modules"])


def test_plain_libraries_load_the_same_function(built: Build, case: Case) -> None:
    found = logits(as_users_load(built, case))
    assert found.isfinite().all()
    assert torch.equal(found, own(built))


def test_merging_keeps_the_function(built: Build, case: Case) -> None:
    model = as_users_load(built, case)
    if case.whole_model:
        assert not isinstance(model, PeftModel)
        return
    before = logits(model)
    merged = model.merge_and_unload()
    assert not isinstance(merged, PeftModel)
    torch.testing.assert_close(logits(merged), before, rtol=1e-5, atol=1e-5)


def test_it_changes_what_it_should(built: Build, case: Case) -> None:
    world, found = built.world, own(built)
    assert (found - logits(plain_base(world))).abs().max() > 1e-4, "the result is the base model"
    if built.method.stage == "post-hoc":
        parent = logits(load_adapter(load_base(str(world.base), device="cpu"), world.parent))
        assert bool((found - parent).abs().max() > 1e-5) != case.keeps_parent


def test_it_writes_to_its_output_alone(built: Build) -> None:
    assert built.touched == []


def test_what_it_reports_can_be_kept(built: Build) -> None:
    examples = built.result.safety_examples
    assert type(examples) is int
    assert examples >= 0
    if not {"forget", "curvature_forget", "safety"} & set(built.method.needs):
        assert examples == 0, "it was given no safety rows"
    details = dict(built.result.details)
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert all(0 <= done <= total and what for what, done, total in built.ticks)


@pytest.mark.parametrize("architecture", ["llama"])
def test_the_seed_decides_every_bit(built: Build, case: Case, tmp_path: Path) -> None:
    torch.manual_seed(123)  # what went before must not matter
    again = build_in(case, built.world, tmp_path)
    weights = "model.safetensors" if case.whole_model else "adapter_model.safetensors"
    assert (again.output / weights).read_bytes() == (built.output / weights).read_bytes()
    assert again.result.safety_examples == built.result.safety_examples


def test_a_bad_setting_is_refused_by_name(case: Case) -> None:
    (name,) = case.bad
    with pytest.raises(InputError, match=name):
        make_method(case.method, case.bad)


def test_it_needs_splits_that_there_are(case: Case) -> None:
    needs = make_method(case.method, case.settings).needs
    assert isinstance(needs, tuple)
    assert set(needs) <= set(SPLITS)
    assert len(set(needs)) == len(needs)


@pytest.mark.parametrize("architecture", ["llama"])
def test_a_post_hoc_method_asks_for_its_parent(built: Build, tmp_path: Path) -> None:
    if built.method.stage != "post-hoc":
        return
    with pytest.raises(InputError, match="Run lora first"):
        built.method.build(context_of(built.method, built.world, tmp_path, parent=None))
    assert not list(tmp_path.iterdir())
