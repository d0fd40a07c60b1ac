"""The cache of keys and values that grows in place holds what transformers' own holds, bit for bit."""

from typing import Any

import pytest
import torch
from safebasin.harness.engines.kv_cache import GrowingLayer, growing_cache
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    OpenAIGPTConfig,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

SIZES: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "mistral, sliding": MistralConfig(**SIZES, sliding_window=6),
    "llama, as many key heads": LlamaConfig(**SIZES | {"num_key_value_heads": 4}),
    "gemma2, every other sliding": Gemma2Config(**SIZES, head_dim=4, sliding_window=6),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()


def states(tokens: int, rows: int = 3) -> Tensor:
    return torch.randn(rows, 2, tokens, 4)


def test_a_layer_grows_as_transformers_own_does() -> None:
    torch.manual_seed(0)
    ours, theirs = GrowingLayer(), DynamicLayer()
    for tokens in (5, *[1] * 200, 3, 70):
        keys, values = states(tokens), states(tokens)
        for mine, other in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(mine, other)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)


@pytest.mark.parametrize(
    "change",
    [
        lambda layer: layer.crop(-2),
        lambda layer: layer.reorder_cache(torch.tensor([2, 0, 0])),
        lambda layer: layer.batch_select_indices(torch.tensor([2, 1])),
        lambda layer: layer.batch_repeat_interleave(2),
        lambda layer: layer.reset(),
    ],
    ids=["crop", "reorder", "select", "repeat", "reset"],
)
def test_a_layer_that_was_changed_in_between(change: Any) -> None:
    torch.manual_seed(0)
    layers = [GrowingLayer(), DynamicLayer()]
    first = states(5), states(5)
    kept = [layer.update(*first) for layer in layers]
    for layer in layers:
        change(layer)
    rows = len(layers[1].keys) if layers[1].keys is not None else 3
    more = states(1, rows), states(1, rows)
    for mine, other in zip(*(layer.update(*more) for layer in layers), strict=True):
        assert torch.equal(mine, other)
    del kept


def test_what_is_there_is_seldom_copied() -> None:
    layer, places = GrowingLayer(), set()
    for _ in range(1000):
        keys, _ = layer.update(states(1), states(1))
        places.add(keys.untyped_storage().data_ptr())
    assert len(places) < 40  # room grows by a quarter: 31 times up to 1000; a copy per token would be up to 1000


def test_room_is_at_most_a_quarter_more_than_wanted() -> None:
    layer = GrowingLayer()
    layer.update(states(1000), states(1000))
    layer.update(states(1), states(1))
    assert layer.keys.untyped_storage().nbytes() <= 1.25 * 1001 * 3 * 2 * 4 * 4


@pytest.mark.parametrize("padding", [0, 4])
def test_generation_is_the_same_to_the_last_bit(model: Any, padding: int) -> None:
    prompts = torch.randint(1, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(prompts)
    prompts[0, :padding], mask[0, :padding] = 0, 0
    settings = {
        "input_ids": prompts, "attention_mask": mask, "max_new_tokens": 80, "min_new_tokens": 80,
        "output_logits": True, "return_dict_in_generate": True,
    }  # fmt: skip
    for how in ({"do_sample": False}, {"do_sample": False, "num_beams": 3}):
        plain = model.generate(**settings, **how)
        ours = model.generate(**settings, **how, **growing_cache(model))
        assert isinstance(plain.past_key_values, DynamicCache)
        assert torch.equal(plain.sequences, ours.sequences)
        assert all(torch.equal(*pair) for pair in zip(plain.logits, ours.logits, strict=True))


def test_layers_that_slide_stay_as_they_are(model: Any) -> None:
    made = growing_cache(model)
    kinds = {type(layer) for layer in made["past_key_values"].layers} if made else set()
    wanted = {"mistral": set(), "gemma2": {GrowingLayer, DynamicSlidingWindowLayer}}
    assert kinds == wanted.get(model.config.model_type, {GrowingLayer})


def test_a_model_with_another_kind_of_cache_keeps_it() -> None:
    small = {"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    assert growing_cache(AutoModelForCausalLM.from_config(MambaConfig(**small))) == {}
    t5 = T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    assert growing_cache(T5ForConditionalGeneration(t5)) == {}
    gpt = {"vocab_size": 60, "n_embd": 16, "n_layer": 1, "n_head": 2}
    assert growing_cache(AutoModelForCausalLM.from_config(OpenAIGPTConfig(**gpt))) == {}, "it takes no cache"

    class WithItsOwn(LlamaForCausalLM):
        def _prepare_cache_for_generation(self, *given: Any, **named: Any) -> None:
            raise NotImplementedError

    assert growing_cache(WithItsOwn(LlamaConfig(**SIZES))) == {}
    static = AutoModelForCausalLM.from_config(LlamaConfig(**SIZES))
    static.generation_config.cache_implementation = "static"
    assert growing_cache(static) == {}
