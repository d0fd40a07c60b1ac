"""vLLM never answers as another model than the one asked for: the probe tells whatever goes wrong in the merge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safebasin.errors import InputError
from safebasin.harness.engines import vllm_worker
from safebasin.harness.store.store import Store
from torch import Tensor

from .asking import answers
from .conftest import Checkpoints

Targets = dict[str, Any]
Weights = Iterator[tuple[str, Tensor]]
REAL = vllm_worker.changed_weights


def nothing(base: str, checkpoint: str) -> Weights:
    return iter(())


def half(base: str, checkpoint: str) -> Weights:
    return ((name, weight) for i, (name, weight) in enumerate(REAL(base, checkpoint)) if i % 2)


def scaled(base: str, checkpoint: str) -> Weights:
    return ((name, weight * 1.01) for name, weight in REAL(base, checkpoint))


def swapped(base: str, checkpoint: str) -> Weights:
    return REAL(base, checkpoint.replace("plain", "rslora"))


@pytest.mark.parametrize("sabotage", [nothing, half, scaled, swapped])
def test_a_wrong_merge_is_refused(
    targets: Targets, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: Any
) -> None:
    monkeypatch.setattr(vllm_worker, "changed_weights", sabotage)
    with pytest.raises(InputError, match=r"does not serve .*plain.*nats off"):
        answers(targets["vllm"], checkpoints["plain"], tmp_path / "store")
    assert not Store(tmp_path / "store").counts()
    monkeypatch.undo()
    after = answers(targets["vllm"], checkpoints["plain"], tmp_path / "after")
    assert after == answers(targets["hf"], checkpoints["plain"], tmp_path / "hf")


def test_the_base_in_place_of_a_checkpoint_close_to_it_is_refused(
    targets: Targets, checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closer than the tolerance, as after a mild restoration: then the differing bits must show."""
    target = targets["vllm"]
    answers(target, None, tmp_path / "first")
    close = [value + 1e-5 for value in target._wanted_of(None)]
    monkeypatch.setitem(target._wanted, checkpoints["plain"], close)
    monkeypatch.setattr(vllm_worker, "changed_weights", nothing)
    with pytest.raises(InputError, match="serves the base model in place of"):
        answers(target, checkpoints["plain"], tmp_path / "store")


def test_a_base_that_is_another_model_is_refused(targets: Targets, checkpoints: Checkpoints, tmp_path: Path) -> None:
    from safebasin.harness.engines.vllm import VLLMEngine

    target = targets["vllm"]
    answers(target, None, tmp_path / "first")
    engine, wanted = target._engine, target._wanted_of(None)
    target.close()
    with pytest.raises(InputError, match="does not serve"):
        VLLMEngine(str(checkpoints["full"]), engine.tokenizer, "float32", wanted)


def test_packed_weights_are_refused(
    targets: Targets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: Any
) -> None:
    from vllm.model_executor.layers import utils

    targets["vllm"].close()
    monkeypatch.setattr(utils, "dispatch_cpu_unquantized_gemm", packing)
    with pytest.raises(InputError, match="quantised or packed"):
        answers(targets["vllm"], None, tmp_path / "store")


@pytest.fixture
def packing() -> Any:
    """What vLLM does to the weights of a linear layer on the CPU by default."""
    import torch

    def pack(layer: Any, remove_weight: bool) -> None:
        kept = layer.weight.detach().clone()
        layer.cpu_linear = lambda x, weight, bias: torch.nn.functional.linear(x, kept, bias)
        if remove_weight:
            layer.weight = torch.nn.Parameter(torch.empty(0), requires_grad=False)

    return pack


def test_an_adapter_of_another_kind_is_refused(targets: Targets, base: Path, tmp_path: Path) -> None:
    from .conftest import random_adapter

    settings = {"r": 2, "use_dora": True, "target_modules": ["q_proj"]}
    folder = random_adapter(base, tmp_path / "dora", settings, 0)
    target = targets["vllm"]
    target._wanted[folder] = target._wanted_of(None)
    with pytest.raises(InputError, match="use_dora=True"):
        answers(target, folder, tmp_path / "store")
