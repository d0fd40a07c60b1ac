"""Bases quantised by bitsandbytes, where it is installed."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.parameters import FlatParameters
from safebasin.restore.models.prepare import copy_with_shared_base, trainable_adapter
from safebasin.restore.models.quantised import forward_epsilon, unpacked_weights
from torch import nn

from .test_adapter_kinds import changed, state

CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=4, max_new_tokens=6, trust_radius=0.5, epsilon=0.3, min_pairs=1
)
ROWS = [Encoded(tuple(range(5, 5 + length)), start) for length, start in [(9, 4), (14, 3), (7, 6)]]
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
KINDS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32},
    "double": {"load_in_4bit": True, "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": torch.float32},
    "bf16": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16},
    "int8": {"load_in_8bit": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base wide enough for blocks of 64 weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=261, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, initializer_range=0.1, bos_token_id=0, eos_token_id=1,
        pad_token_id=1,
    )  # fmt: skip
    made = tmp_path_factory.mktemp("wide")
    LlamaForCausalLM(config).save_pretrained(made)
    return made


def quantised(folder: Path, kind: str, kbit: bool = False) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(**KINDS[kind])
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=settings, device_map={"": "cpu"}, dtype=torch.float32
    )
    if kbit:
        model = prepare_model_for_kbit_training(model)
    torch.manual_seed(0)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    made = get_peft_model(model, lora)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    return made.eval()


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:.*forget rows are few", "ignore:The curvature rests on few", "ignore:MatMul8bitLt")
@pytest.mark.parametrize("kbit", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_adapter_alone_moves(
    folder: Path, tokenizer: Any, harmful: Any, benign: Any, kind: str, kbit: bool
) -> None:
    model = quantised(folder, kind, kbit)
    before = state(model)
    frame = restore(model, tokenizer, forget=harmful, retain=benign, config=CONFIG).trace
    assert frame["forget_loss"].iloc[-1] > frame["forget_loss_before"].iloc[0] + 0.01
    moved = changed(before, state(model))
    assert moved == {name for name in before if ".lora_" in name}


@needs_bitsandbytes
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "double"])
def test_gradients_pass_through_4_bit_weights(folder: Path, kind: str, packed: bool) -> None:
    model = quantised(folder, kind)
    if packed:  # as any use of the model in evaluation mode does on some processors
        with torch.no_grad():
            model(input_ids=torch.tensor([[5, 6, 7]]))
    with trainable_adapter(model) as flat:
        loss = TokenMeanLoss(model, flat, ROWS, 3, 1)
        gradient = loss.loss_and_gradient()[1]
        length = float(gradient.norm())
        first = float(gradient[: flat.size // 2].norm())
        flat.add(gradient / length, 1e-3)
        above = loss.loss()
        flat.add(gradient / length, -2e-3)
        below = loss.loss()
    assert first > 0.1 * length  # the first layer's share, which passes through all others
    assert (above - below) / 2e-3 == pytest.approx(length, rel=0.02)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_copies_share_the_quantised_weights(folder: Path, kind: str) -> None:
    model = quantised(folder, kind)
    with trainable_adapter(model) as flat:
        TokenMeanLoss(model, flat, ROWS, 3, 1).loss()
    other = copy_with_shared_base(model)
    ours, theirs = (m.get_base_model().model.layers[0].self_attn.o_proj for m in (model, other))
    assert ours is not theirs
    assert ours.weight is theirs.weight
    assert getattr(ours, "quant_state", ours) is getattr(theirs, "quant_state", ours)
    assert getattr(ours, "state", ours) is getattr(theirs, "state", ours)
    assert FlatParameters(other).get().data_ptr() != FlatParameters(model).get().data_ptr()


class Linear8bitLt(nn.Module):
    """Stands for the layer of that name."""


class _Linear4bit(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.compute_dtype = dtype
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)


@pytest.mark.parametrize(
    ("layers", "epsilon"),
    [
        ([nn.Linear(1, 1)], 2.0**-23),
        ([nn.Linear(1, 1), nn.Linear(1, 1).half()], 2.0**-10),
        ([nn.Linear(1, 1), nn.Linear(1, 1).bfloat16()], 2.0**-7),
        ([nn.Linear(1, 1), _Linear4bit(torch.bfloat16)], 2.0**-7),
        ([_Linear4bit(torch.float32)], 2.0**-23),
        ([nn.Linear(1, 1).half(), Linear8bitLt()], 2.0**-7),
        ([nn.Linear(1, 1).to(torch.float8_e4m3fn), nn.Linear(1, 1).half()], 2.0**-10),
        ([], 2.0**-23),
    ],
)
def test_the_rounding_error_is_that_of_the_coarsest_type(layers: list[nn.Module], epsilon: float) -> None:
    assert forward_epsilon(nn.Sequential(*layers)) == epsilon


def test_packing_is_off_for_the_block_only() -> None:
    class Packs(nn.Module):
        support_avx512bf16_for_cpu = True

    net = nn.Sequential(Packs(), nn.Linear(1, 1))
    with unpacked_weights(net):
        assert not net[0].support_avx512bf16_for_cpu
    assert net[0].support_avx512bf16_for_cpu
