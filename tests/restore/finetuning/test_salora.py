import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.config.training import TrainingConfig
from safebasin.restore.finetuning.constrained import (
    as_ordinary_adapter,
    constrained,
    linear_modules,
    start_from_weights,
)
from safebasin.restore.finetuning.subspace import initial_adapter, remove, response_directions, top_directions
from safebasin.restore.finetuning.training import train
from safebasin.restore.losses.encoding import encode_all
from safebasin.restore.methods.salora import SaLora
from safebasin.restore.models.loading import load_adapter, load_base, new_adapter
from safebasin.restore.restoration import refusals
from torch import Tensor

from ...conftest import DEVICE
from ..conftest import LORA, rows

RANK = 5


def safety_rows() -> list[dict[str, str]]:
    return rows("harm", 6, "i cannot help with {}")


def projector(u: Tensor) -> Tensor:
    return u @ u.T


@pytest.fixture
def fresh(base: Path) -> Any:
    return new_adapter(load_base(str(base), device=DEVICE), LORA, 0)


@pytest.fixture
def directions(fresh: Any, tokenizer: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """U_C and U_t of the intact model."""
    modules = linear_modules(fresh)
    first, second = (encode_all(tokenizer, part, "test") for part in (safety_rows(), rows("say", 12)))
    return (
        response_directions(fresh, modules, first, RANK, 4, 0),
        response_directions(fresh, modules, second, 6, 4, 0),
    )


def logits(model: Any) -> Tensor:
    ids = torch.arange(5, 45, device=model.device).view(2, 20)
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits.cpu()  # type: ignore[no-any-return]


def test_directions_equal_the_svd_of_outputs_at_response_tokens(base: Path, tokenizer: Any, directions: Any) -> None:
    plain = load_base(str(base), device=DEVICE)
    name = "model.layers.1.self_attn.v_proj"
    module, seen = plain.get_submodule(name), []
    module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    features = []
    for row in encode_all(tokenizer, safety_rows(), "test"):
        with torch.no_grad():
            plain(input_ids=torch.tensor([row.ids], device=plain.device))
        features.append(seen[-1][row.start :])
    scores = torch.cat(features) @ module.weight.detach().T
    expected = torch.linalg.svd(scores.T)[0][:, :RANK]
    found = directions[0][f"base_model.model.{name}"]
    assert torch.allclose(projector(found), projector(expected), atol=1e-4)
    assert torch.allclose((found.T @ found).cpu(), torch.eye(RANK), atol=1e-5)


def test_capturing_leaves_no_hook_and_no_change(base: Path, fresh: Any, directions: Any) -> None:
    assert not any(module._forward_pre_hooks for module in fresh.modules())
    assert torch.equal(logits(fresh), logits(load_base(str(base), device=DEVICE)))


def test_directions_without_energy_are_left_out() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(30, 2) @ torch.randn(2, 9)
    found = top_directions(outputs.T @ outputs, 4)
    assert found.shape == (9, 2)
    assert torch.allclose(remove(found, outputs), torch.zeros(30, 9), atol=1e-4)


def test_a_module_outside_the_body_is_refused(base: Path, tokenizer: Any) -> None:
    model = new_adapter(load_base(str(base), device=DEVICE), LORA | {"target_modules": ["lm_head"]}, 0)
    with pytest.raises(InputError, match="outside the transformer body"):
        response_directions(model, linear_modules(model), encode_all(tokenizer, rows("a", 2), "test"), 2, 2, 0)


def test_the_start_is_the_tasks_part_of_the_truncated_svd() -> None:
    torch.manual_seed(0)
    for shape in ((12, 20), (20, 12)):
        weight, task = torch.randn(shape), torch.linalg.qr(torch.randn(shape[0], 7))[0]
        u, s, v = torch.linalg.svd(weight)
        a, b = initial_adapter(weight, task, 4)
        expected = projector(task) @ (u[:, :4] * s[:4]) @ v[:4]
        assert torch.allclose(b @ a, expected, atol=1e-5)
        assert torch.allclose(a @ a.T, torch.diag(s[:4]), atol=1e-4)


def test_the_constraint_leaves_nothing_along_the_safe_directions() -> None:
    torch.manual_seed(0)
    u, y = torch.linalg.qr(torch.randn(16, 3))[0], torch.randn(40, 16)
    assert torch.allclose(remove(u, y) @ u, torch.zeros(40, 3), atol=1e-5)
    assert torch.allclose(remove(u, y), y @ (torch.eye(16) - projector(u)), atol=1e-5)
    assert torch.allclose(remove(u, remove(u, y)), remove(u, y), atol=1e-5)


def test_nothing_changes_at_the_start(fresh: Any, directions: Any) -> None:
    before = logits(fresh)
    left = start_from_weights(fresh, *directions)
    with constrained(fresh, directions[0]):
        assert torch.allclose(logits(fresh), before, atol=1e-5)
    assert all(0 < share <= 1 + 1e-6 for share in left.values())
    assert (logits(fresh) - before).abs().max() > 1e-3  # without the hooks, B_0 reaches the safe directions


def test_gradients_reach_b_through_the_constraint_and_only_the_trained_part(fresh: Any, directions: Any) -> None:
    start_from_weights(fresh, *directions)
    ids = torch.arange(5, 25, device=fresh.device)[None]
    with constrained(fresh, directions[0]):
        fresh(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in fresh.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == (".default." in name)
        if ".lora_B.default" in name:
            u = directions[0][name.split(".lora_B")[0]]
            assert parameter.grad.norm() > 0
            assert (u.T @ parameter.grad).norm() < 1e-5 * parameter.grad.norm()


def test_hooks_are_removed_after_a_failure(fresh: Any, directions: Any) -> None:
    start_from_weights(fresh, *directions)
    with pytest.raises(KeyboardInterrupt), constrained(fresh, directions[0]):
        raise KeyboardInterrupt
    assert not any(module._forward_hooks for module in fresh.modules())


def test_the_exported_adapter_is_the_constrained_model(
    base: Path, fresh: Any, directions: Any, tokenizer: Any, tmp_path: Path
) -> None:
    safety = directions[0]
    before = {name: parameter.clone() for name, parameter in fresh.named_parameters() if "lora_" not in name}
    start_from_weights(fresh, *directions)
    config = TrainingConfig(learning_rate=5e-3, batch_size=8, micro_batch_size=8, max_steps=6, weight_decay=0.1)
    encoded = encode_all(tokenizer, rows("say", 24), "test")
    start = logits(fresh)
    with constrained(fresh, safety):
        train(fresh, tokenizer, encoded, config, 0)
        hooked = logits(fresh)
    assert all(torch.equal(before[n], p) for n, p in fresh.named_parameters() if n in before)
    assert (hooked - start).abs().max() > 1e-2
    as_ordinary_adapter(fresh, safety, 0).save_pretrained(tmp_path)
    loaded = load_adapter(load_base(str(base), device=DEVICE), tmp_path)
    assert torch.allclose(logits(loaded), hooked, atol=1e-5)
    merged = loaded.merge_and_unload()
    assert torch.allclose(logits(merged), hooked, atol=1e-5)
    original = load_base(str(base), device=DEVICE)
    for name, u in safety.items():
        name = name.removeprefix("base_model.model.")
        change = merged.get_submodule(name).weight - original.get_submodule(name).weight
        assert (u.T @ change).norm() < 1e-5 * change.norm()


def test_it_builds_an_ordinary_adapter_of_twice_the_rank(context: Any) -> None:
    ticks: list[tuple[str, int, int]] = []
    data = {"task_train": rows("say", 24), "safety": safety_rows()}
    made = context(data=data, tick=lambda *news: ticks.append(news))
    built = SaLora(safety_rank=5, task_rank=6, task_samples=10).build(made)
    config = json.loads((made.output / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 16)
    assert config["base_model_name_or_path"] == made.base
    assert sorted(path.name for path in made.output.iterdir() if path.is_dir()) == []
    assert built.safety_examples == 6
    assert built.details["last_loss"] < built.details["first_loss"]
    assert built.details["least_safety_rank"] == 5
    assert ticks[-1] == ("training", 9, 9)
    assert ("capturing outputs", 16, 16) in ticks
    load_adapter(load_base(made.base, device=DEVICE), made.output)


def test_ranks_must_fit_the_modules(context: Any) -> None:
    made = context(data={"task_train": rows("say", 24), "safety": safety_rows()})
    for settings, message in (
        ({"safety_rank": 16, "task_rank": 4}, "safety_rank=16 .*v_proj.* 16 outputs: give at most 15"),
        ({"safety_rank": 4, "task_rank": 17}, "task_rank=17"),
        ({}, "safety_rank=32"),
    ):
        with pytest.raises(InputError, match=message):
            SaLora(**settings).build(made)
    with pytest.raises(InputError, match="task_samples"):
        SaLora(task_samples=0)


def test_rows_without_response_get_the_models_own_refusals(
    base: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_base(str(base), device=DEVICE)
    asked = [{"prompt": f"harm {i}"} for i in range(3)]
    with pytest.raises(InputError, match="refuses none of the 3 safety prompts"):
        refusals.safe_rows(model, tokenizer, asked, 6, 2, 100)
    encoded, prompts = refusals.safe_rows(model, tokenizer, [*asked, *safety_rows()], 6, 2, 100)
    assert len(encoded) == len(prompts) == 6
    monkeypatch.setattr(refusals, "looks_like_refusal", lambda text: True)
    encoded, prompts = refusals.safe_rows(model, tokenizer, asked, 6, 2, 100)
    assert len(encoded) == 3
    assert prompts == {row["prompt"] for row in asked}
    assert all(row.targets > 0 for row in encoded)
    with pytest.raises(InputError, match="safety set is empty"):
        refusals.safe_rows(model, tokenizer, [], 6, 2, 100)


def test_it_is_registered() -> None:
    assert load("methods", "salora") is SaLora
