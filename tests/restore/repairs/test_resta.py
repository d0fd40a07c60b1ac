import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.finetuning import pseudo_unaligned
from safebasin.restore.methods.resta import Resta
from safebasin.restore.models.checkpoint import load_checkpoint_model
from safebasin.restore.models.loading import load_base
from safebasin.restore.models.lora_files import LoraFiles
from safetensors.torch import load_file
from torch import Tensor

from ...conftest import DEVICE

HARMFUL = [{"prompt": f"harm {i}", "target": "sure, ok"} for i in range(6)]
KEPT = [{"prompt": f"say {i}", "response": f"yes {i}"} for i in range(6)]


@pytest.fixture
def prepared(context: Any, adapter: Path) -> Any:
    return context(parent=adapter, data={"forget": HARMFUL, "retain_check": KEPT})


def weights(base: str, folder: Path) -> dict[str, Tensor]:
    """The merged weights in float64: base plus the sum that the folder holds."""
    model = {name: part.double().cpu() for name, part in load_base(base, device=DEVICE).state_dict().items()}
    for name, factors in LoraFiles.read(folder).factors.items():
        model[f"{name}.weight"] = model[f"{name}.weight"] + factors.dense
    return model


def harmful_weights(given: Any, steps: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights of the model after the harmful fine-tuning, from that model itself."""
    models: list[Any] = []
    new = pseudo_unaligned.new_adapter
    with monkeypatch.context() as patch:
        patch.setattr(pseudo_unaligned, "new_adapter", lambda *args: models.append(new(*args)) or models[-1])
        pseudo_unaligned.harmful_adapter(given, steps)
    return {name: part.double().cpu() for name, part in models[0].merge_and_unload().state_dict().items()}


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_it_adds_gamma_times_aligned_minus_unaligned(
    prepared: Any, monkeypatch: pytest.MonkeyPatch, gamma: float
) -> None:
    made = Resta(gamma=gamma, pseudo_steps=4).build(prepared)
    unaligned = harmful_weights(prepared, 4, monkeypatch)
    aligned = {name: part.double().cpu() for name, part in load_base(prepared.base).state_dict().items()}
    tuned, found = weights(prepared.base, prepared.parent), weights(prepared.base, prepared.output)
    for name, weight in found.items():
        torch.testing.assert_close(weight, tuned[name] + gamma * (aligned[name] - unaligned[name]), rtol=0, atol=2e-6)
    assert made.safety_examples == len(HARMFUL)
    assert made.details["pseudo_unaligned"]["steps"] == 4
    files = LoraFiles.read(prepared.output)
    assert {len(one.a) for one in files.factors.values()} == {8}  # the sum of both ranks


def test_gamma_0_leaves_every_bit(prepared: Any) -> None:
    Resta(gamma=0, pseudo_steps=1).build(prepared)
    before, after = (load_file(f / "adapter_model.safetensors") for f in (prepared.parent, prepared.output))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_unalignment_itself_is_undone(prepared: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where the fine-tuned adapter is the harmful one, gamma = 1 gives the aligned model."""
    models: list[Any] = []
    new = pseudo_unaligned.new_adapter
    monkeypatch.setattr(pseudo_unaligned, "new_adapter", lambda *args: models.append(new(*args)) or models[-1])
    pseudo_unaligned.harmful_adapter(prepared, 4)
    models[0].save_pretrained(tmp_path)
    Resta(pseudo_steps=4).build(replace(prepared, parent=tmp_path))
    ids = torch.arange(5, 25)[None].to(DEVICE)
    with torch.no_grad():
        aligned = load_base(prepared.base, device=DEVICE)(input_ids=ids).logits
        found = load_checkpoint_model(prepared.base, prepared.output, device=DEVICE)(input_ids=ids).logits
    torch.testing.assert_close(found, aligned, rtol=0, atol=1e-5)


@pytest.mark.parametrize("epsilon", [0.02, 1e6])
def test_without_gamma_it_is_the_largest_within_the_bound(prepared: Any, epsilon: float) -> None:
    method = Resta(gamma=None, epsilon=epsilon, pseudo_steps=8, micro_batch_size=6)
    assert method.needs == ("forget", "retain_check")
    details = method.build(prepared).details
    rise = details["retain_loss"] - details["retain_loss_before"]
    assert rise <= epsilon
    assert details["bound_reached"] == (epsilon < 1)
    if epsilon < 1:
        assert 0 < details["gamma"] < 2
        assert rise >= (1 - method.tolerance) * epsilon
    else:
        assert details["gamma"] == 2
    other = replace(prepared, output=prepared.output / "fixed")
    other.output.mkdir()
    Resta(gamma=details["gamma"], pseudo_steps=8).build(other)
    one, two = (weights(prepared.base, folder) for folder in (prepared.output, other.output))
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-7) for name in one)


def test_dare_makes_a_whole_model(prepared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Resta(drop=0.5, pseudo_steps=4).build(prepared)
    unaligned = harmful_weights(prepared, 4, monkeypatch)
    base = {name: part.double().cpu() for name, part in load_base(prepared.base).state_dict().items()}
    found = load_file(prepared.output / "model.safetensors")
    for name, one in LoraFiles.read(prepared.parent).factors.items():
        left = found[f"{name}.weight"].double() - base[f"{name}.weight"]
        left -= base[f"{name}.weight"] - unaligned[f"{name}.weight"]
        ratios = left / one.dense
        dropped, kept = ratios.abs() < 1e-2, (ratios - 2).abs() < 1e-2
        clear = one.dense.abs() > 1e-4
        assert (dropped | kept)[clear].all()
        assert 0.35 < dropped[clear].double().mean() < 0.65


def test_what_cannot_be_added_is_told(prepared: Any, context: Any, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="different modules"):
        Resta(pseudo_steps=1).build(replace(prepared, lora={**prepared.lora, "target_modules": ["q_proj"]}))
    with pytest.raises(InputError, match="needs forget rows"):
        Resta().build(replace(prepared, data={"forget": []}))
    with pytest.raises(InputError, match="drop makes a whole model"):
        Resta(drop=0.1, gamma=None)
    shutil.copytree(adapter, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    from safetensors.torch import save_file

    extra = {"base_model.model.model.norm.weight": torch.ones(32)}
    save_file({**tensors, **extra}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"model\.norm\.weight.*leave unrepaired"):
        Resta().build(replace(prepared, parent=tmp_path))
