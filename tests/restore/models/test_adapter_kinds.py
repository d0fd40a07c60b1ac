"""Adapters and bases of all kinds that can be restored, and those that are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.adapters import lora_parameters
from safebasin.restore.models.checkpoint import attach_zero_lora
from safebasin.restore.models.loading import load_base
from safebasin.restore.models.lora_files import LoraFiles
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.reference import as_base
from safebasin.restore.repair import repair

from ...conftest import DEVICE
from ..conftest import LORA

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=4, max_new_tokens=6, trust_radius=0.5, epsilon=0.3, min_pairs=1
)
ROWS = [Encoded(tuple(range(5, 5 + length)), start) for length, start in [(9, 4), (14, 3), (7, 6)]]


def adapted(base: Path, dtype: str = "float32", name: str = "default", **options: Any) -> Any:
    """A model with a random adapter, B not zero."""
    torch.manual_seed(0)
    given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = load_base(str(base), dtype=dtype, device=DEVICE)
    made = get_peft_model(model, LoraConfig(**{**given, **options}), adapter_name=name)
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if "lora_B" in parameter_name or "lora_embedding_A" in parameter_name:
                parameter.normal_(0, 0.05)
    return made.eval()


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def slope_error(model: Any) -> float:
    """How far the slope of the loss along its gradient is from the gradient's length, relative to it."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    flat = FlatParameters(model)
    loss = TokenMeanLoss(model, flat, ROWS, 3, 1)
    gradient = loss.loss_and_gradient()[1]
    length = float(gradient.norm())
    with flat.preserved():
        flat.add(gradient / length, 1e-3)
        above = loss.loss()
        flat.add(gradient / length, -2e-3)
        below = loss.loss()
    return abs((above - below) / 2e-3 / length - 1)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "all_linear": {"target_modules": "all-linear"},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "lora_bias": {"lora_bias": True},
    "dropout": {"lora_dropout": 0.5},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:`lora_bias=True` was passed")
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_lora(base: Path, tokenizer: Any, harmful: Any, benign: Any, kind: str) -> None:
    model = adapted(base, **KINDS[kind])
    assert slope_error(model) < 0.01
    before = state(model)
    frame = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG).trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01
    moved = changed(before, state(model))
    assert moved == {name for name in before if "lora_" in name}


def test_the_gradient_of_dora_is_not_that_of_its_loss_so_it_is_refused(
    base: Path, tokenizer: Any, harmful: Any, benign: Any
) -> None:
    """Should PEFT ever differentiate the norm, the first line fails, and DoRA can be allowed."""
    model = adapted(base, use_dora=True)
    assert slope_error(model) > 0.03
    before = state(model)
    with pytest.raises(InputError, match="'default' is DoRA, a variant"):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert not changed(before, state(model))


def test_dora_can_be_restored_once_merged(base: Path, tokenizer: Any, harmful: Any, benign: Any) -> None:
    whole = adapted(base, use_dora=True).merge_and_unload()
    model = attach_zero_lora(whole, LORA, seed=0)
    frame = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG).trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01


@pytest.mark.parametrize("options", [{"bias": "lora_only"}, {"modules_to_save": ["norm"]}])
def test_what_else_an_adapter_holds_stays_and_is_saved(
    base: Path, tokenizer: Any, harmful: Any, benign: Any, tmp_path: Path, options: Any
) -> None:
    model = adapted(base, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.1)
    before, ids = state(model), torch.arange(5, 25, device=model.device).unsqueeze(0)
    result = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    assert all(".lora_" in name for name in changed(before, state(model)))
    result.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(load_base(str(base), device=DEVICE), str(tmp_path)).eval()
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_embeddings_stay_tied(base: Path, tokenizer: Any, harmful: Any, benign: Any) -> None:
    model = adapted(base)
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    inner = model.get_base_model()
    assert inner.lm_head.weight is inner.model.embed_tokens.weight


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_fp32_adapter_on_a_16_bit_base(base: Path, tokenizer: Any, harmful: Any, benign: Any, dtype: str) -> None:
    exact, coarse = adapted(base), adapted(base, dtype)
    gradients = []
    for model in (exact, coarse):
        flat = FlatParameters(model)
        gradients.append(TokenMeanLoss(model, flat, ROWS, 3, 1).loss_and_gradient()[1])
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.99
    before = state(coarse)
    frame = restore(coarse, tokenizer, forget=harmful, retain=benign, config=CONFIG).trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01
    after = state(coarse)
    assert {name for name in after if after[name].dtype == torch.float32} == {n for n in after if "lora_" in n}
    assert all("lora_" in name for name in changed(before, after))


def test_only_the_active_adapter_moves_whatever_its_name(base: Path, tokenizer: Any, harmful: Any, benign: Any) -> None:
    """`model` is a part of every parameter's name."""
    model = adapted(base, name="model")
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    before = state(model)
    restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    moved = changed(before, state(model))
    assert moved
    assert all(name.endswith(".model.weight") for name in moved)


def disabled(model: Any) -> Any:
    model.disable_adapter_layers()
    return model


def offloaded(model: Any) -> Any:
    for name, parameter in lora_parameters(model)[:1]:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(parameter.to("meta")))
    return model


def classifier(model: Any) -> Any:
    from transformers import LlamaForSequenceClassification

    other = LlamaForSequenceClassification(model.config)
    return get_peft_model(other, LoraConfig(r=2, target_modules=["q_proj"], task_type="SEQ_CLS"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (disabled, "is disabled. Call enable_adapter_layers"),
        (offloaded, "1 parameters of the adapter 'default' are offloaded"),
        (classifier, "LlamaForSequenceClassification is no causal language model"),
    ],
)
def test_other_adapters_are_refused(
    base: Path, tokenizer: Any, harmful: Any, benign: Any, spoil: Any, message: str
) -> None:
    model = spoil(adapted(base))
    with pytest.raises(InputError, match=message):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_lora_weights": "pissa"}, "initialised by pissa, which changes the base model's weights"),
        ({"init_lora_weights": "pissa_niter_4"}, "initialised by pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "initialised by olora"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "replicates layers"),
    ],
)
def test_adapters_without_which_the_model_is_not_its_base_are_refused(
    base: Path, tokenizer: Any, harmful: Any, benign: Any, tmp_path: Path, options: Any, message: str
) -> None:
    """By every way to the base: a restoration, a repair from files, one in memory, and the block itself."""
    model = adapted(base, **options)
    before = state(model)
    with pytest.raises(InputError, match=message):
        restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG)
    with pytest.raises(InputError, match=message):
        repair(model, "no_op", base=str(base))
    with pytest.raises(InputError, match=message), as_base(model):
        pass
    assert not changed(before, state(model))
    model.save_pretrained(str(tmp_path))
    with pytest.raises(InputError, match=message):
        LoraFiles.read(tmp_path)


def test_what_required_a_gradient_does_afterwards(base: Path) -> None:
    """PEFT turns modules that are saved whole off with the adapter, and on again."""
    model = adapted(base, modules_to_save=["norm"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with as_base(model):
        pass
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
