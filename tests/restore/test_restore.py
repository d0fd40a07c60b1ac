"""The whole restoration of a tiny Llama's adapter."""

import copy
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.api import restore, restore_folder
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.methods.curvature import Curvature
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.prepare import copy_with_shared_base

from ..conftest import DEVICE

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=4, max_new_tokens=8, trust_radius=0.5, epsilon=0.3, min_pairs=1
)


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[n].dtype == other[n].dtype and torch.equal(one[n], other[n]) for n in one
    )


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25, device=model.device).unsqueeze(0)).logits.cpu()


def test_the_forget_loss_rises_the_retain_loss_holds_the_base_is_untouched(
    model: Any, tokenizer: Any, harmful: Any, benign: Any
) -> None:
    before = state(model)
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert result.model is model
    frame = result.trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01
    assert (frame["retain_loss"] <= result.record.retain_reference + 0.3).all()
    after = state(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    assert (result.forget_report.rows, result.safety_examples) == (12, 12)


def test_it_is_deterministic(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> None:
    one = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG, inplace=False)
    torch.manual_seed(99)
    two = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG, inplace=False)
    assert same(state(one.model), state(two.model))


def test_a_copy_leaves_the_original_alone_and_shares_its_base(
    model: Any, tokenizer: Any, harmful: Any, benign: Any
) -> None:
    before = state(model)
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG, inplace=False)
    assert same(before, state(model))
    assert not same(before, state(result.model))
    ours, theirs = dict(model.named_parameters()), dict(result.model.named_parameters())
    assert all((ours[name] is theirs[name]) != (".lora_" in name) for name in ours)


def test_the_saved_adapter_loads_in_plain_peft(
    model: Any, tokenizer: Any, harmful: Any, benign: Any, base: Path, tmp_path: Path
) -> None:
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    result.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load_base(str(base), device=DEVICE), str(tmp_path)).eval()
    assert torch.equal(logits(again), logits(model.eval()))
    assert len(json.loads((tmp_path / "restoration_trace.json").read_text())["iterations"]) == 2


def test_a_frozen_adapter_is_restored_and_frozen_again(
    base: Path, adapter: Path, tokenizer: Any, harmful: Any, benign: Any
) -> None:
    model = load_adapter(load_base(str(base), device=DEVICE), adapter)
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert result.trace["moved_norm"].iloc[0] > 0
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


def test_modes_flags_and_gradients_are_left_as_they_were(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> None:
    model.train()
    flags = [p.requires_grad for p in model.parameters()]
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert model.training
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_a_16_bit_adapter_becomes_fp32(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> None:
    model.bfloat16()
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    kinds = {".lora_" in name: p.dtype for name, p in model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}


@pytest.mark.parametrize("sixteen", [False, True])
def test_a_loss_that_is_not_finite_leaves_the_model_as_it_was(
    model: Any, tokenizer: Any, harmful: Any, benign: Any, sixteen: bool
) -> None:
    with torch.no_grad():
        model.get_base_model().model.norm.weight.fill_(3e38)  # finite, and no product with it is
    if sixteen:
        model.bfloat16()
    before = state(model)
    with pytest.raises(InputError, match=r"loss on the retain_check set .* is (nan|inf)"):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    after = state(model)
    assert same({n: t.nan_to_num() for n, t in before.items()}, {n: t.nan_to_num() for n, t in after.items()})


def plain(model: Any) -> Any:
    return model.get_base_model()


def merged(model: Any) -> Any:
    model.merge_adapter()
    return model


def two_active(model: Any) -> Any:
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["default", "other"])
    return model


def ia3(model: Any) -> Any:
    return get_peft_model(
        model.unload(), IA3Config(target_modules=["v_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    )


def infinite(model: Any) -> Any:
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "lora_A" in n).fill_(float("inf"))
    return model


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (plain, "Expected a PEFT model, got LlamaForCausalLM"), (merged, "merged into the base model"),
        (two_active, "2 adapters are active"), (ia3, "is IA3"), (infinite, "not all finite"),
    ],
)  # fmt: skip
def test_unsuitable_models_are_refused(
    model: Any, tokenizer: Any, harmful: Any, benign: Any, spoil: Any, message: str
) -> None:
    spoiled = spoil(model)
    before = state(spoiled)
    with pytest.raises(InputError, match=message):
        restore(spoiled, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert same(before, state(spoiled))


def test_bad_rows_leave_the_model_as_it_was(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> None:
    before = state(model)
    with pytest.raises(InputError, match="are in the forget and in the retain rows"):
        restore(model, tokenizer, forget=[*harmful, benign[0]], retain=benign, config=CONFIG)
    assert same(before, state(model))


def test_an_interruption_leaves_whole_iterations(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> None:
    states: list[Any] = []

    def tick(what: str, done: int, total: int) -> None:
        if what == "restoring":
            states.append(state(model))
            if done == 6 + 2:  # two pairs into the second iteration
                raise KeyboardInterrupt

    start = state(model)
    with pytest.raises(KeyboardInterrupt):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG, on_progress=tick)
    first = next(s for i, s in enumerate(states) if not same(s, start))
    assert same(state(model), first)


def test_copies_keep_tied_weights_tied(model: Any) -> None:
    other = copy_with_shared_base(model).get_base_model()
    assert other.lm_head.weight is other.model.embed_tokens.weight


@pytest.mark.filterwarnings("ignore:The adapter was trained on")
def test_from_folder_to_folder(
    base: Path, adapter: Path, harmful: Any, benign: Any, tmp_path: Path, model: Any, tokenizer: Any
) -> None:
    out = tmp_path / "deep" / "out"
    restore_folder(str(base), adapter, harmful, benign, out, config=CONFIG, device=DEVICE)
    assert {"adapter_config.json", "adapter_model.safetensors", "restoration_trace.json"} <= {
        f.name for f in out.iterdir()
    }
    assert [f.name for f in out.parent.iterdir()] == ["out"]
    restored = load_adapter(load_base(str(base), device=DEVICE), out)
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert torch.equal(logits(restored), logits(model.eval()))
    with pytest.raises(InputError, match="exists already"):
        restore_folder(str(base), adapter, harmful, benign, out, config=CONFIG, device=DEVICE)


def test_another_base_of_the_same_shapes_gives_a_warning(
    tiny_chat_model: Any, adapter: Path, harmful: Any, benign: Any, tmp_path: Path
) -> None:
    other = str(tiny_chat_model(seed=1))
    with pytest.warns(UserWarning, match="The adapter was trained on"):
        restore_folder(other, adapter, harmful, benign, tmp_path / "out", config=CONFIG, device=DEVICE)


@pytest.mark.parametrize("how", ["link", "copy"])
def test_the_same_base_under_another_name_gives_none(
    how: str, base: Path, adapter: Path, harmful: Any, benign: Any, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    if how == "link":
        other.symlink_to(base)
    else:
        shutil.copytree(base, other)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The adapter was trained on")
        restore_folder(str(other), adapter, harmful, benign, tmp_path / "out", config=CONFIG, device=DEVICE)


def test_nothing_half_written_stays(
    base: Path, adapter: Path, harmful: Any, benign: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safebasin.restore.api.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        restore_folder(str(base), adapter, harmful, benign, tmp_path / "out", config=CONFIG, device=DEVICE)
    assert not list(tmp_path.iterdir())


def test_the_method(context: Any, adapter: Path, harmful: Any, benign: Any) -> None:
    ticks: list[Any] = []
    data = {
        "forget": harmful[:6], "curvature_forget": harmful[6:], "retain_1": benign[:10], "retain_2": benign[10:20],
        "retain_check": benign[20:],
    }  # fmt: skip
    made = context(data=data, parent=adapter, tick=lambda *news: ticks.append(news))
    built = Curvature.from_preset(
        "paper", iterations=1, pairs=4, max_new_tokens=8, trust_radius=0.5, min_pairs=1
    ).build(made)
    assert built.safety_examples == 12
    assert json.loads(json.dumps(dict(built.details)))["last_iteration"]["accepted"]
    assert (made.output / "restoration_trace.json").is_file()
    config = json.loads((made.output / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == made.base
    assert ticks[-1] == ("restoring", 6, 6)
    with pytest.raises(InputError, match="none was given"):
        Curvature().build(context(data=data))


def test_the_method_is_registered_and_checks_its_settings() -> None:
    assert load("methods", "curvature") is Curvature
    with pytest.raises(InputError, match="epsilon=-1"):
        Curvature(epsilon=-1)


def test_importing_the_package_is_cheap_and_it_can_be_called() -> None:
    code = (
        "import sys, safebasin.restore as r; from safebasin.restore import RestoreConfig;"
        "sys.exit(int('torch' in sys.modules or not callable(r) or hasattr(r, 'nothing')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert copy.copy(RestoreConfig()) == RestoreConfig()
