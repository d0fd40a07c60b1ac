"""Weights move as VISAGE says, the same way for every method, and come back to the last bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.errors import InputError
from safebasin.harness.engines.perturbation import Perturber, displaced, weights_of
from safebasin.restore.models.loading import load_base
from safebasin.tasks.perturbation import Perturbation

from ...conftest import TinyChatModel

HERE = Perturbation(0, 0.0)
AWAY = Perturbation(3, 0.25)
EMBEDDING, QUERY = "model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def folder(tiny_chat_model: TinyChatModel) -> Path:
    return tiny_chat_model()


@pytest.fixture
def model(folder: Path) -> Any:
    return load_base(str(folder))


def adapted(model: Any, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **settings)
    return get_peft_model(model, config).eval()


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def merged(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach() for name, weight in weights_of(copy.deepcopy(model).merge_and_unload()).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def step(model: Any, before: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return weights_of(model)[name].detach().float() - before[name].float()


def test_every_tensor_moves_by_alpha_times_its_own_norm_and_norms_stay(model: Any) -> None:
    before = state(model)
    Perturber(model).move(AWAY)
    for name, after in model.state_dict().items():
        length = (after - before[name]).norm() / before[name].norm()
        assert length == pytest.approx(0.0 if "norm" in name else 0.25, rel=1e-5)


def test_biases_move_and_buffers_stay() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    module.add_module("input_layernorm", torch.nn.LayerNorm(8))
    before = state(module)
    Perturber(module).move(AWAY)
    moved = {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"0.weight", "0.bias"} <= moved
    assert not {"1.running_mean", "1.running_var", "input_layernorm.weight", "input_layernorm.bias"} & moved


def test_tied_embeddings_move_once(model: Any) -> None:
    assert EMBEDDING in weights_of(model)
    assert "lm_head.weight" not in weights_of(model)
    Perturber(model).move(AWAY)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_directions_depend_on_seed_and_name_alone(model: Any, folder: Path) -> None:
    """Two methods, one direction: scaled to other weights, in another dtype, under an adapter, it is the same."""
    before, other = state(model), load_base(str(folder), dtype="bfloat16")
    for parameter in other.parameters():
        parameter.data.mul_(3)
    tuned, scaled = adapted(load_base(str(folder))), state(other)
    unmoved = merged(tuned)
    for each in (model, other, tuned):
        Perturber(each).move(AWAY)
    for name in (EMBEDDING, QUERY):
        moves = [step(model, before, name), step(other, scaled, name), step(tuned, unmoved, name)]
        for another in moves[1:]:
            assert torch.cosine_similarity(moves[0].flatten(), another.flatten(), dim=0) > 0.999
    queries = [step(model, before, QUERY), step(model, before, QUERY.replace("0.self", "1.self"))]
    assert abs(torch.cosine_similarity(queries[0].flatten(), queries[1].flatten(), dim=0)) < 0.2
    Perturber(model).move(None)
    turned = displaced(QUERY, before[QUERY], Perturbation(4, 0.25), torch.empty_like(before[QUERY])) - before[QUERY]
    assert abs(torch.cosine_similarity(turned.flatten(), queries[0].flatten(), dim=0)) < 0.2


def test_an_adapter_is_merged_and_its_norms_count(folder: Path) -> None:
    tuned = adapted(load_base(str(folder)), lora_alpha=64)
    origin = merged(tuned)
    Perturber(tuned).move(AWAY)
    moved = weights_of(tuned)
    assert moved.keys() == origin.keys()
    for name, weight in origin.items():
        assert (moved[name] - weight).norm() / weight.norm() == pytest.approx(0.25, rel=1e-4)


def test_the_origin_of_an_adapted_model_is_the_merged_one(folder: Path) -> None:
    tuned = adapted(load_base(str(folder)))
    ids = torch.arange(10)[None]
    unmerged = tuned(ids).logits
    perturber = Perturber(tuned)
    perturber.move(AWAY)
    assert not torch.allclose(tuned(ids).logits, unmerged, atol=1e-2)
    perturber.move(HERE)
    assert torch.allclose(tuned(ids).logits, unmerged, atol=1e-4)
    perturber.move(None)
    assert torch.equal(tuned(ids).logits, unmerged)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuned", [False, True])
def test_weights_come_back_to_the_last_bit_and_nothing_adds_up(folder: Path, dtype: str, tuned: bool) -> None:
    model: Any = load_base(str(folder), dtype=dtype)
    model = adapted(model) if tuned else model
    before, perturber = state(model), Perturber(model)
    perturber.move(AWAY)
    direct = state(model)
    for alpha in (0.5, -0.5, 0.0, 0.1):
        perturber.move(Perturbation(1, alpha))
    perturber.move(AWAY)
    assert same(state(model), direct)
    perturber.move(None)
    assert same(state(model), before)
    assert not any(getattr(module, "merged", False) for module in model.modules())


def test_weights_come_back_after_a_failure_half_way(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from safebasin.harness.engines import perturbation

    before, perturber = state(model), Perturber(model)

    def failing(name: str, *rest: Any) -> Any:
        if name == QUERY:
            raise KeyboardInterrupt
        return displaced(name, *rest)

    monkeypatch.setattr(perturbation, "displaced", failing)
    with pytest.raises(KeyboardInterrupt):
        perturber.move(AWAY)
    assert not same(state(model), before)
    perturber.move(None)
    assert same(state(model), before)


def test_modules_that_an_adapter_saves_whole_move_in_its_version(folder: Path) -> None:
    tuned = adapted(load_base(str(folder)), modules_to_save=["down_proj"])
    before = state(tuned)
    perturber = Perturber(tuned)
    perturber.move(AWAY)
    moved = {name for name, tensor in tuned.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "base_model.model.model.layers.0.mlp.down_proj.modules_to_save.default.weight" in moved
    assert "model.layers.0.mlp.down_proj.weight" in weights_of(tuned)
    assert not any("lora_" in name or "original_module" in name for name in moved)
    perturber.move(None)
    assert same(state(tuned), before)


def test_quantised_and_offloaded_weights_are_refused(model: Any) -> None:
    model.lm_head = torch.nn.Linear(4, 4, device="meta")
    with pytest.raises(InputError, match=r"'lm_head.weight' is offloaded"):
        Perturber(model).move(AWAY)
    model.lm_head = torch.nn.Linear(4, 4)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(InputError, match=r"stored as torch.uint8"):
        Perturber(model).move(AWAY)


def test_without_room_for_the_copy_nothing_has_moved(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile
    from io import BytesIO

    class Full(BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    before, perturber = state(model), Perturber(model)
    with pytest.raises(InputError, match="No space left"):
        perturber.move(AWAY)
    perturber.move(None)
    assert same(state(model), before)
