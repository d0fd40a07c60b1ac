"""What is merged is the same model, or it is said."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.errors import InputError
from safebasin.restore.api import Prepared
from safebasin.restore.models.loading import load_base
from safebasin.restore.models.merge import check_untied, merged, rounded_away
from safebasin.restore.models.moving import MovedWeights
from torch import nn

from ...conftest import DEVICE

pytestmark = pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`",
    "ignore:Model with `tie_word",
    "ignore:Input and output embeddings are no",
)
IDS = torch.arange(5, 25).unsqueeze(0)


def adapted(base: Path, targets: list[str], std: float = 0.05, dtype: str = "float32") -> Any:
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM")
    model = get_peft_model(load_base(str(base), dtype=dtype, device=DEVICE), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.normal_(0, std)
    return model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS.to(model.device)).logits.float().cpu()
    return found


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_one_end_of_a_tied_table_cannot_be_merged(base: Path, target: str) -> None:
    model = adapted(base, ["q_proj", target])
    assert model.config.tie_word_embeddings
    before = logits(model)
    prepared: Any = SimpleNamespace(model=model, base=str(base))
    for refused in (check_untied, merged, MovedWeights, lambda model: Prepared.check_mergeable(prepared)):
        with pytest.raises(InputError, match="uses one table for both"):
            refused(model)
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_table_of_its_own_can(base: Path, target: str) -> None:
    plain = load_base(str(base), device=DEVICE)
    plain.lm_head.weight = nn.Parameter(plain.lm_head.weight.detach().clone())
    config = LoraConfig(r=4, target_modules=[target], task_type="CAUSAL_LM")
    model = get_peft_model(plain, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            nn.init.normal_(parameter, std=0.05)
    before = logits(model.eval())
    torch.testing.assert_close(logits(merged(model)), before, atol=1e-4, rtol=1e-4)


def test_merging_is_exact_in_32_bits(base: Path) -> None:
    model = adapted(base, ["q_proj", "v_proj"])
    before = logits(model)
    assert rounded_away(model) < 1e-4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(logits(merged(model)), before, atol=1e-4, rtol=1e-4)


def test_what_16_bits_round_away_is_measured_and_said(base: Path) -> None:
    model = adapted(base, ["q_proj", "v_proj"], std=2e-3, dtype="bfloat16")
    lost = rounded_away(model)
    before = {name: weight.detach().float() for name, weight in model.get_base_model().named_parameters()}
    deltas = {
        name: module.get_delta_weight("default").detach().float()
        for name, module in model.get_base_model().named_modules()
        if hasattr(module, "lora_A")
    }
    with pytest.warns(UserWarning, match=f"rounds {100 * lost:.0f} % of the adapter's update away"):
        whole = dict(merged(model).named_parameters())
    errors = [
        whole[f"{name}.weight"].detach().float() - before[f"{name}.base_layer.weight"] - d for name, d in deltas.items()
    ]
    expected = sum(float(e.square().sum()) for e in errors) / sum(float(d.square().sum()) for d in deltas.values())
    assert lost > 0.1
    assert lost == pytest.approx(expected**0.5, rel=0.05)


def test_nothing_is_lost_of_no_change(base: Path) -> None:
    assert rounded_away(adapted(base, ["q_proj"], std=0.0, dtype="bfloat16")) == 0.0
