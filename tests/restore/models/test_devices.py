"""Models dispatched by accelerate: hooks in place, weights offloaded, adapters on several devices."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.models.devices import input_device
from safebasin.restore.models.loading import load_adapter, load_base
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import copy_with_shared_base
from torch import nn

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=4, max_new_tokens=6, trust_radius=0.5, epsilon=0.3, min_pairs=1
)
OTHER = "cuda:0" if torch.cuda.is_available() else "cpu"


def adapter_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if ".lora_" in name}


@pytest.fixture
def expected(model: Any, tokenizer: Any, harmful: Any, benign: Any) -> dict[str, torch.Tensor]:
    """The restored adapter of the model on one device."""
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    return adapter_of(model)


def mapped(base: Path, adapter: Path, folder: Path) -> Any:
    """As from_pretrained with a device_map over several devices."""
    layers = {"model.layers.0": "cpu", "model.layers.1": OTHER}
    around = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    plain = load_base(str(base), device="cpu")
    return load_adapter(dispatch_model(plain, {**around, **layers}, main_device="cpu", force_hooks=True), adapter)


def offloaded(base: Path, adapter: Path, folder: Path) -> Any:
    """Weights of the base in files or, where accelerate fetches them from, in memory; the adapter on the device."""
    model = load_adapter(load_base(str(base), device="cpu"), adapter)
    for number, layer in enumerate(model.get_base_model().model.layers):
        cpu_offload(layer.mlp, execution_device=torch.device("cpu"))
        disk_offload(layer.self_attn.o_proj, str(folder / str(number)), execution_device=torch.device("cpu"))
    assert any(parameter.is_meta for parameter in model.parameters())
    return model


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("spread", [mapped, offloaded])
def test_a_dispatched_model_is_restored_as_one_on_one_device(
    base: Path, adapter: Path, tokenizer: Any, harmful: Any, benign: Any, tmp_path: Path,
    expected: dict[str, torch.Tensor], spread: Any, inplace: bool,
) -> None:  # fmt: skip
    model = spread(base, adapter, tmp_path)
    assert any(hasattr(module, "_hf_hook") for module in model.modules())
    start = adapter_of(model)
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG, inplace=inplace)
    restored = adapter_of(result.model)
    assert all(torch.allclose(restored[name], expected[name], atol=1e-5) for name in expected)
    if not inplace:
        assert all(torch.equal(tensor, start[name]) for name, tensor in adapter_of(model).items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
def test_an_adapter_put_on_an_offloaded_base_is_offloaded_and_refused(
    base: Path, adapter: Path, tokenizer: Any, harmful: Any, benign: Any
) -> None:
    plain = load_base(str(base), device="cpu")
    cpu_offload(plain, execution_device=torch.device("cpu"))
    model = load_adapter(plain, adapter)
    with pytest.raises(InputError, match="8 parameters of the adapter 'default' are offloaded"):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)


def test_copies_share_offloaded_weights(base: Path, adapter: Path, tmp_path: Path) -> None:
    model = offloaded(base, adapter, tmp_path)
    other = copy_with_shared_base(model)
    ours, theirs = (m.get_base_model().model.layers[0].self_attn.o_proj._hf_hook for m in (model, other))
    assert ours is theirs  # the hook holds the weights


class _Elsewhere(AlignDevicesHook):
    """Puts a layer's output on another device; here on one that holds no data, which any mix-up would fail on."""

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        return output.to("meta")


def test_labels_go_where_the_logits_are(model: Any) -> None:
    from safebasin.restore.losses.encoding import Encoded
    from safebasin.restore.losses.objective import TokenMeanLoss

    add_hook_to_module(model.get_base_model().lm_head, _Elsewhere())
    loss = TokenMeanLoss(model, FlatParameters(model), [Encoded((5, 6, 7), 1)], 1, 1)
    assert loss.batch_sum(loss.batches[0]).device.type == "meta"


def test_input_goes_to_the_embeddings() -> None:
    class Net(nn.Module):
        def __init__(self, *devices: str) -> None:
            super().__init__()
            self.first, self.embed = (nn.Linear(2, 2, device=device) for device in devices)

        def get_input_embeddings(self) -> nn.Module:
            return self.embed

    assert input_device(Net("meta", "cpu")) == torch.device("cpu")
    assert input_device(Net(OTHER, "meta")) == torch.device(OTHER)
    assert input_device(Net("meta", "meta")) == torch.device("cpu")


@pytest.mark.skipif(OTHER == "cpu", reason="needs a second device")
def test_vectors_are_gathered_from_all_devices() -> None:
    parts = [("a", nn.Parameter(torch.ones(2))), ("b", nn.Parameter(torch.ones(3, device=OTHER)))]
    flat = FlatParameters(parts)
    flat.set(torch.arange(5.0))
    flat.add(torch.ones(5), 2.0)
    assert torch.equal(flat.get(), torch.arange(5.0) + 2)
    for _, part in parts:
        part.grad = torch.full_like(part, 3.0)
    assert torch.equal(flat.gradient(), torch.full((5,), 3.0))
