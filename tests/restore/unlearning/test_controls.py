import json
from pathlib import Path as Folder
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.registry import load
from safebasin.restore.methods.interpolate import Interpolate
from safebasin.restore.methods.no_op import NoOp
from safebasin.restore.methods.random_direction import RandomDirection
from safebasin.restore.methods.shrink import Shrink
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter
from safebasin.restore.unlearning.config import ControlConfig
from safebasin.restore.unlearning.walk import follow
from safetensors.torch import load_file
from torch import nn

from ...conftest import DEVICE

SEARCHED = [Shrink, Interpolate, RandomDirection]


def weights(folder: Folder) -> torch.Tensor:
    return torch.cat([part.flatten() for _, part in sorted(load_file(folder / "adapter_model.safetensors").items())])


def test_the_search_ends_just_inside_the_bound(theta: FlatParameters, quadratic: Any) -> None:
    retain, config = quadratic(2), ControlConfig(epsilon=0.3, tolerance=1e-4)
    theta.set(retain.centre.float())
    path = RandomDirection().path(theta, 0)
    trace = follow(theta, path, retain, config)
    rise = retain.loss() - trace.retain_reference
    assert 0.3 * (1 - 1e-4) <= rise <= 0.3
    unit = path.at(1.0) - path.at(0.0)
    expected = (2 * 0.3 / float(unit.double() @ retain.a @ unit.double())) ** 0.5  # of a quadratic, from its minimum
    assert [row["multiple"] for row in trace.iterations if row["accepted"]][-1] == pytest.approx(expected, rel=1e-3)


def test_a_path_within_the_bound_is_followed_to_its_end(theta: FlatParameters, quadratic: Any) -> None:
    trace = follow(theta, Shrink().path(theta), quadratic(1), ControlConfig(epsilon=1e6))
    assert not theta.get().any()
    assert [row["multiple"] for row in trace.iterations] == [1.0]


def test_the_first_length_is_doubled_until_the_bound_breaks(theta: FlatParameters, quadratic: Any) -> None:
    retain = quadratic(2)
    theta.set(retain.centre.float())
    trace = follow(theta, RandomDirection(first_length=0.01).path(theta, 0), retain, ControlConfig(epsilon=1.0))
    tried = [row["multiple"] for row in trace.iterations]
    assert tried[:4] == pytest.approx([0.01, 0.02, 0.04, 0.08])


def test_where_nothing_is_allowed_every_bit_stays(theta: FlatParameters, quadratic: Any) -> None:
    retain = quadratic(2)
    theta.set(retain.centre.float())
    before = theta.get().view(torch.int32)
    follow(theta, RandomDirection().path(theta, 0), retain, ControlConfig(epsilon=0.0))
    assert torch.equal(theta.get().view(torch.int32), before)


@pytest.mark.parametrize("when", range(1, 8))
def test_an_interrupt_leaves_the_last_accepted_trial(theta: FlatParameters, quadratic: Any, when: int) -> None:
    retain = quadratic(2)
    theta.set(retain.centre.float())
    path = RandomDirection().path(theta, 0)
    rows: list[Any] = follow(theta, path, retain, ControlConfig(epsilon=0.5, tolerance=1e-6)).iterations
    theta.set(path.at(0.0))
    retain.calls.clear()
    retain.fail_at = when
    with pytest.raises(KeyboardInterrupt):
        follow(theta, path, retain, ControlConfig(epsilon=0.5, tolerance=1e-6))
    accepted = [0.0, *(row["multiple"] for row in rows[: when - 1] if row["accepted"])]
    assert torch.equal(theta.get(), path.at(accepted[-1]))


def test_a_random_direction_is_unit_and_decided_by_the_seed(theta: FlatParameters) -> None:
    one, same, other = (RandomDirection().path(theta, seed).at(1.0) - theta.get() for seed in (0, 0, 1))
    assert float(one.norm()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def merged(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: module.base_layer.weight.detach() + module.get_delta_weight("default").detach()
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_interpolation_is_linear_in_the_merged_weights(model: Any, t: float) -> None:
    bases = {n: m.base_layer.weight.detach().clone() for n, m in model.named_modules() if hasattr(m, "base_layer")}
    tuned = {name: weight.clone() for name, weight in merged(model).items()}
    with trainable_adapter(model) as parameters:
        parameters.set(Interpolate().path(parameters).at(t))
        found = merged(model)
    assert tuned.keys() == bases.keys()
    assert any(not torch.equal(tuned[name], bases[name]) for name in tuned)
    for name, weight in found.items():
        assert torch.allclose(weight, (1 - t) * tuned[name] + t * bases[name], atol=1e-6, rtol=0)
        assert t < 1 or torch.equal(weight, bases[name])


def test_shrinking_scales_the_merged_change_by_the_square(model: Any) -> None:
    before = {n: m.get_delta_weight("default") for n, m in model.named_modules() if hasattr(m, "get_delta_weight")}
    with trainable_adapter(model) as parameters:
        parameters.set(Shrink().path(parameters).at(0.5))
    for name, module in model.named_modules():
        if name in before:
            assert torch.allclose(module.get_delta_weight("default"), before[name] / 4, atol=1e-7)


def test_interpolation_refuses_dora() -> None:
    named = [(f"q.lora_{part}.default.weight", nn.Parameter(torch.ones(2, 2))) for part in ("A", "magnitude_vector")]
    with pytest.raises(InputError, match="DoRA"):
        Interpolate().path(FlatParameters(named))


@pytest.mark.parametrize("method", SEARCHED)
def test_a_control_sits_at_the_bound(method: Any, context: Any, adapter: Folder, benign: Any) -> None:
    made = [context(data={"retain_check": benign[20:]}, parent=adapter) for _ in range(2)]
    ticks: list[Any] = []
    settings = {"epsilon": 0.01, "tolerance": 0.1, "micro_batch_size": 64}
    built = method(**settings).build(made[0])
    object.__setattr__(made[1], "tick", lambda *news: ticks.append(news))
    method(**settings).build(made[1])
    details = json.loads(json.dumps(dict(built.details)))
    assert details["bound_reached"]
    assert 0.009 <= details["retain_loss"] - details["retain_loss_before"] <= 0.01
    first, again = (weights(one.output) for one in made)
    assert torch.equal(first, again)
    assert details["moved_norm"] == pytest.approx(float((first - weights(adapter)).norm()), rel=1e-3)
    assert built.safety_examples == details["gradient_evaluations"] == 0
    assert ticks[-1] == ("searching", 40, 40)
    trace = json.loads((made[0].output / "restoration_trace.json").read_text())
    assert len(trace["iterations"]) == details["trials"]


def test_interpolation_to_the_end_is_the_base_model(context: Any, adapter: Folder, benign: Any, base: Folder) -> None:
    made = context(data={"retain_check": benign}, parent=adapter)
    assert Interpolate(epsilon=1e6).build(made).details["multiple"] == 1.0
    plain = load_base(str(base), device=DEVICE)
    ids = torch.tensor([[5, 6, 7]], device=plain.device)
    expected = plain(ids).logits
    assert torch.equal(load_adapter(plain, made.output)(ids).logits, expected)


def test_shrinking_stops_at_the_matched_norm(context: Any, adapter: Folder, benign: Any) -> None:
    made = context(data={"retain_check": benign}, parent=adapter)
    built = Shrink(epsilon=1e6, match_norm=0.2).build(made)
    assert built.details["moved_norm"] == pytest.approx(0.2, rel=1e-4)
    assert float((weights(made.output) - weights(adapter)).norm()) == pytest.approx(0.2, rel=1e-4)


def test_no_op_copies_every_byte(context: Any, adapter: Folder, tmp_path: Folder) -> None:
    made = context(data={}, parent=adapter)
    assert NoOp().build(made).safety_examples == 0
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (made.output / name).read_bytes() == (adapter / name).read_bytes()
    with pytest.raises(InputError, match="no PEFT adapter"):
        NoOp().build(context(data={}, parent=tmp_path))


@pytest.mark.parametrize("method", [*SEARCHED, NoOp])
def test_it_is_registered_and_needs_a_parent(method: Any, context: Any, benign: Any) -> None:
    assert load("methods", method.name) is method
    with pytest.raises(InputError, match="none was given"):
        method().build(context(data={"retain_check": benign}))


@pytest.mark.parametrize(
    ("method", "wrong"),
    [
        (Shrink, {"epsilon": -0.1}),
        (Shrink, {"match_norm": 0.0}),
        (Interpolate, {"tolerance": 0.0}),
        (Interpolate, {"max_trials": 0}),
        (RandomDirection, {"first_length": float("inf")}),
    ],
)
def test_bad_settings_are_refused(method: Any, wrong: Any) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}="):
        method(**wrong)


@pytest.mark.parametrize("method", [Shrink, Interpolate])
def test_dora_is_refused_whose_weights_are_not_linear_in_b(method: Any) -> None:
    """Shrunk, its magnitudes would vanish, and the base's weights with them."""
    names = (
        "q_proj.lora_A.default.weight",
        "q_proj.lora_B.default.weight",
        "q_proj.lora_magnitude_vector.default.weight",
    )
    theta = FlatParameters([(name, nn.Parameter(torch.ones(2))) for name in names])
    with pytest.raises(InputError, match="is DoRA, whose weights are not linear in B"):
        method().path(theta)
