"""Greedy decoding of our own makes the tokens that transformers' `generate` makes, wherever it is used."""

from inspect import signature
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.harness.engines.greedy import ends_of_greedy, greedy
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig, LlamaForCausalLM, MistralConfig, Qwen2Config

SIZES: dict[str, Any] = {
    "vocab_size": 12, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
ASKED: dict[str, Any] = {"do_sample": False}


def new(config: Any) -> Any:
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(weight, std=0.5)  # so that rows differ, and end at different times
    return model


def adapted(model: Any) -> Any:
    found = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    return found.eval()


MODELS = {
    "llama": lambda: new(LlamaConfig(**SIZES)),
    "qwen2": lambda: new(Qwen2Config(**SIZES)),
    "llama, adapted": lambda: adapted(new(LlamaConfig(**SIZES))),
    "llama, two ends": lambda: new(LlamaConfig(**SIZES | {"eos_token_id": [2, 3]})),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_tokens_are_those_of_generate(make: Any) -> None:
    model = make()
    ids = torch.randint(4, 12, (24, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    for row in range(0, 24, 3):
        ids[row, : row // 3], mask[row, : row // 3] = 0, 0
    plain = model.generate(input_ids=ids, attention_mask=mask, max_length=40, do_sample=False)
    ours = greedy(model, ids, mask, 40, ends_of_greedy(model, ASKED), 0)
    lengths = (plain[:, 9:] != 0).sum(-1)
    assert len(set(lengths.tolist())) > 4, "rows must end at different times, or nothing is tested"
    assert torch.equal(ours, plain)


def test_rows_that_have_ended_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = new(LlamaConfig(**SIZES))
    seen: list[int] = []
    forward = model.forward

    def noting(input_ids: Any, **given: Any) -> Any:
        seen.append(len(input_ids))
        return forward(input_ids=input_ids, **given)

    noting.__signature__ = signature(forward)  # type: ignore[attr-defined]
    monkeypatch.setattr(model, "forward", noting)
    ids = torch.randint(4, 12, (24, 9), generator=torch.Generator().manual_seed(1))
    made = greedy(model, ids, torch.ones_like(ids), 60, [2], 0)
    open_rows = [int((made[:, at:] != 0).any(-1).sum()) for at in range(9, 9 + len(seen))]
    assert seen[-1] < seen[0] == 24
    assert all(here < 4 * max(1, wanted) / 3 + 1 for here, wanted in zip(seen, open_rows, strict=True))


def changed(**settings: Any) -> Any:
    model = new(LlamaConfig(**SIZES))
    for name, value in settings.items():
        setattr(model.generation_config, name, value)
    return model


class OwnWay(LlamaForCausalLM):
    def prepare_inputs_for_generation(self, *given: Any, **named: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    "make",
    [
        lambda: changed(repetition_penalty=1.1),
        lambda: changed(min_new_tokens=3),
        lambda: changed(suppress_tokens=[5]),
        lambda: changed(eos_token_id=None),
        lambda: changed(cache_implementation="static"),
        lambda: new(MistralConfig(**SIZES, sliding_window=6)),
        lambda: new(Gemma2Config(**SIZES, head_dim=4, sliding_window=6)),
        lambda: OwnWay(LlamaConfig(**SIZES)),
    ],
    ids=["penalty", "least", "suppressed", "endless", "static", "sliding", "half sliding", "own way"],
)
def test_everything_else_is_left_to_generate(make: Any) -> None:
    assert ends_of_greedy(make(), ASKED) == []


def test_other_settings_are_left_to_generate() -> None:
    model = new(LlamaConfig(**SIZES))
    assert ends_of_greedy(model, ASKED | {"attention_mask": None}) == [2]
    for settings in ({"do_sample": True}, {}, ASKED | {"num_beams": 2}, ASKED | {"cache_implementation": "static"}):
        assert ends_of_greedy(model, settings) == []
