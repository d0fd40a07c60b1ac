from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import encode_all, pad_id_of
from safebasin.restore.methods.rank_space import RankSpace
from safebasin.restore.methods.ridge import Ridge
from safebasin.restore.methods.safe_delta import SafeDelta
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.lora_files import LoraFiles
from safebasin.restore.repairs import closed_forms, inputs
from safebasin.restore.repairs.inputs import input_moments
from torch import Tensor

from ...conftest import DEVICE

SAFE = [{"prompt": f"harm {'x' * i}", "response": "i cannot"} for i in range(5)]
KEPT = [{"prompt": f"say {i}", "response": f"yes {i}"} for i in range(6)]


def taken_in(model: Any, modules: Any, rows: Any) -> dict[str, Tensor]:
    """Inputs of each module, [tokens, d], row by row and so without padding."""
    found: dict[str, list[Tensor]] = {name: [] for name in modules}
    handles = [
        module.register_forward_pre_hook(lambda _, given, name=name: found[name].append(given[0][0].detach().double()))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        for row in rows:
            model(input_ids=torch.tensor([row.ids], device=DEVICE))
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts).cpu() for name, parts in found.items()}


@pytest.fixture
def modules(model: Any) -> dict[str, Any]:
    inner = model.get_base_model()
    names = [
        f"model.layers.{i}.{part}" for i in (0, 1) for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    ]
    return {name: inner.get_submodule(name) for name in names}


@pytest.mark.parametrize("room", [1, 4 << 30])
def test_moments_are_those_of_the_tokens(
    model: Any, modules: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    rows = encode_all(tokenizer, SAFE, "safety")
    expected = taken_in(model, modules, rows)
    monkeypatch.setattr(inputs, "ROOM", room)
    counts: list[int] = []
    found = dict(input_moments(model, modules, rows, 2, pad_id_of(tokenizer), done=counts.append))
    assert list(found) == list(modules)
    assert counts == [1, 2, 3, 4, 5, 6]
    for name, x in expected.items():
        torch.testing.assert_close(found[name].cpu(), x.T @ x / len(x), rtol=1e-4, atol=1e-5)
    if room > 1:
        assert found["model.layers.0.self_attn.q_proj"] is found["model.layers.0.self_attn.v_proj"]
    assert not any(module._forward_pre_hooks for module in modules.values())


def test_moments_through_a_are_those_of_its_outputs(model: Any, modules: Any, tokenizer: Any) -> None:
    rows = encode_all(tokenizer, SAFE, "safety")
    through = {name: torch.randn(3, module.in_features) for name, module in modules.items()}
    found = dict(input_moments(model, modules, rows, 3, pad_id_of(tokenizer), through))
    for name, x in taken_in(model, modules, rows).items():
        z = x @ through[name].double().T
        torch.testing.assert_close(found[name].cpu(), z.T @ z / len(z), rtol=1e-4, atol=1e-4)


def test_a_module_that_takes_in_nothing_is_told(model: Any, tokenizer: Any) -> None:
    rows = encode_all(tokenizer, SAFE, "safety")
    with pytest.raises(InputError, match="'head' took in nothing"):
        dict(input_moments(model, {"head": model.get_base_model().lm_head}, rows, 2, 1))


@pytest.fixture
def prepared(context: Any, adapter: Path) -> Any:
    data = {"safety": SAFE, "retain_1": KEPT[:3], "retain_2": KEPT[3:], "retain_check": KEPT}
    return context(parent=adapter, data=data)


def factors(folder: Path) -> Any:
    return LoraFiles.read(folder).factors


def aligned_moments(given: Any, tokenizer: Any) -> dict[str, Tensor]:
    base = load_base(given.base, device=DEVICE)
    modules = {name: base.get_submodule(name) for name in factors(given.parent)}
    found = taken_in(base, modules, encode_all(tokenizer, SAFE, "safety"))
    return {name: x.T @ x / len(x) for name, x in found.items()}


def test_safe_delta_reports_the_true_loss_of_what_it_saved(prepared: Any, tokenizer: Any) -> None:
    moments, before = aligned_moments(prepared, tokenizer), factors(prepared.parent)
    for how in ("joint", "sum", "none"):
        made = SafeDelta(s=None, keep=0.3, compensation=how).build(prepared)  # type: ignore[arg-type]
        after = factors(prepared.output)
        loss = 0.0
        for row in made.details["modules"]:
            name = row["module"]
            change = after[name].dense
            one = float((change @ moments[name] @ change.T).trace())
            loss += one
            assert row["safety_loss"][how] == pytest.approx(one, rel=1e-3, abs=1e-7)
            assert torch.equal(after[name].b, before[name].b)
            same = (after[name].a == before[name].a).all(0)
            assert row["columns"] == int(same.sum())
        assert made.details["safety_loss"][how] == pytest.approx(loss, rel=1e-3)
        assert made.safety_examples == made.details["refusals"] == len(SAFE)
        assert made.details["safety_loss"]["joint"] < made.details["safety_loss"]["tuned"]


def test_safe_delta_at_its_ends(prepared: Any) -> None:
    before = factors(prepared.parent)
    SafeDelta(s=float("inf")).build(prepared)
    assert all(torch.equal(one.a, before[name].a) for name, one in factors(prepared.output).items())
    SafeDelta(s=0.0).build(prepared)
    assert not any(one.a.any() for one in factors(prepared.output).values())


def test_ridge_is_its_formula_with_the_aligned_model_s_inputs(prepared: Any, tokenizer: Any) -> None:
    moments, before = aligned_moments(prepared, tokenizer), factors(prepared.parent)
    Ridge(strength=2.0).build(prepared)
    for name, one in factors(prepared.output).items():
        h = 2 * moments[name]
        pulled = torch.eye(len(h)).double() + 2.0 * h / h.diagonal().mean()
        expected = torch.linalg.solve(pulled, before[name].a.double().T).T
        torch.testing.assert_close(one.a.double(), expected, rtol=1e-4, atol=1e-6)
        assert torch.equal(one.b, before[name].b)


def test_rank_space_takes_refusals_of_the_aligned_and_tasks_of_the_tuned_model(prepared: Any, tokenizer: Any) -> None:
    base = load_base(prepared.base, device=DEVICE)
    before = factors(prepared.parent)
    names = list(before)
    safe = taken_in(base, {name: base.get_submodule(name) for name in names}, encode_all(tokenizer, SAFE, "safety"))
    tuned = load_adapter(base, prepared.parent)
    layers = {name: tuned.get_base_model().get_submodule(name) for name in names}
    task = taken_in(tuned, layers, encode_all(tokenizer, KEPT, "retain"))
    RankSpace(strength=1.5).build(prepared)
    for name, one in factors(prepared.output).items():
        z = [x[name] @ before[name].a.double().T for x in (task, safe)]
        gram = [each.T @ each / len(each) for each in z]
        expected = closed_forms.in_rank_space(before[name].b, gram[0], gram[1], 1.5)
        torch.testing.assert_close(one.b, expected, rtol=1e-3, atol=1e-6)
        assert torch.equal(one.a, before[name].a)


@pytest.mark.parametrize("kind", [Ridge, RankSpace])
def test_without_a_strength_it_is_the_largest_within_the_bound(prepared: Any, kind: Any) -> None:
    assert "retain_check" in kind().needs
    assert "retain_check" not in kind(strength=1.0).needs
    details = kind(epsilon=0.05).build(prepared).details
    rise = details["retain_loss"] - details["retain_loss_before"]
    assert 0.98 * 0.05 <= rise <= 0.05
    other = replace(prepared, output=prepared.output / "fixed")
    other.output.mkdir()
    kind(strength=details["strength"]).build(other)
    one, two = (factors(folder) for folder in (prepared.output, other.output))
    assert all(torch.allclose(one[name].dense, two[name].dense, rtol=0, atol=1e-6) for name in one)
