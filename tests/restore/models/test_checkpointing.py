"""Gradient checkpointing, which the user has enabled, acts although losses are taken in evaluation mode."""

from typing import Any

import pytest
import torch
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.checkpointing import checkpointing_in_evaluation
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import trainable_adapter

ROWS = [Encoded(tuple(range(5, 5 + length)), start) for length, start in [(40, 4), (50, 3)]]


def measured(model: Any, flat: FlatParameters) -> tuple[torch.Tensor, int, int]:
    """The gradient, how many bytes autograd kept for the backward pass, and how often a layer was entered."""
    kept: list[int] = []
    runs: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    hook = model.get_base_model().model.layers[0].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    loss = TokenMeanLoss(model, flat, ROWS, 2, 1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        gradient = loss.loss_and_gradient()[1]
    hook.remove()
    return gradient, sum(kept), len(runs)


@pytest.mark.parametrize("reentrant", [False, True])
def test_it_saves_memory_and_leaves_the_gradient_as_it_is(model: Any, reentrant: bool) -> None:
    with trainable_adapter(model) as flat:
        gradient, bytes_without, runs = measured(model, flat)
    assert runs == 1
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    with trainable_adapter(model) as flat:
        same, bytes_with, runs = measured(model, flat)
        no_dropout = not any(module.training for module in model.modules())
    assert runs == 2
    assert no_dropout
    assert torch.equal(same, gradient)
    if not reentrant:  # reentrant recomputation runs under the same hooks, and is counted
        assert bytes_with < bytes_without


def test_without_the_block_evaluation_mode_does_not_checkpoint(model: Any) -> None:
    """Should transformers ever change this, the module is no longer needed."""
    model.gradient_checkpointing_enable()
    assert measured(model, FlatParameters(model))[2] == 1


def test_layers_are_as_before(model: Any) -> None:
    model.gradient_checkpointing_enable()
    layers = model.get_base_model().model.layers
    own = layers[1].forward
    layers[1].forward = own  # as accelerate's hooks do
    with checkpointing_in_evaluation(model):
        assert "forward" in vars(layers[0])
    assert "forward" not in vars(layers[0])
    assert vars(layers[1])["forward"] is own


def test_a_model_whose_layers_cannot_gives_a_warning(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.gradient_checkpointing_enable()
    monkeypatch.setattr("safebasin.restore.models.checkpointing.GradientCheckpointingLayer", torch.nn.Conv3d)
    with (
        pytest.warns(UserWarning, match="Gradient checkpointing is enabled, but has no effect"),
        trainable_adapter(model),
    ):
        pass
