"""Input that cannot be used: a clear error, and the model as it was, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.api import restore
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.restoration.data import split

from .conftest import rows
from .models.test_adapter_kinds import changed, state

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*forget rows are few"),
    pytest.mark.filterwarnings("ignore:The curvature rests on few"),
]
CONFIG = RestoreConfig.from_preset(
    "paper", iterations=2, pairs=2, max_new_tokens=3, trust_radius=0.5, epsilon=0.3, min_pairs=1
)


def refused(model: Any, tokenizer: Any, message: str, **given: Any) -> None:
    """Restores, and checks the error, and that nothing but the error is left of it."""
    model.train()
    before, flags = state(model), [p.requires_grad for p in model.parameters()]
    sets = {"forget": rows("harm", 4), "retain": rows("say", 8), "config": CONFIG, **given}
    with pytest.raises(InputError, match=message):
        restore(model, tokenizer, **sets)
    assert not changed(before, state(model))
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(module.training for module in model.modules())


LONG = "x" * 2000


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retain": [*rows("say", 7), {"prompt": "a", "response": " \n"}]}, "needs text in column response"),
        ({"retain": [*rows("say", 7), {"prompt": "a", "response": "</s>"}]}, "Row 'a' has .* special tokens alone"),
        ({"retain_check": [{"prompt": "a", "response": "</s><|user|></s>"}]}, "Row 'a' has .* special tokens alone"),
        ({"forget": [*rows("harm", 3), {"prompt": ""}]}, "Row 3 of the forget set needs text in column prompt"),
        ({"retain": [*rows("say", 7), {"prompt": "a", "response": LONG}]}, "more than max_length=1024"),
        ({"retain": [*rows("say", 7), {"prompt": LONG, "response": "b"}]}, "more than max_length=1024"),
        ({"forget": [*rows("harm", 3), {"prompt": LONG}]}, "of the forget set has 200. tokens, more than max_length="),
        ({"curvature_forget": [{"prompt": LONG}]}, "of the forget set has 200. tokens, more than max_length="),
        ({"retain": rows(" HARM ", 8)}, "4 prompts are in the forget and in the retain rows, such as ' HARM  .'"),
    ],
)
def test_rows(model: Any, tokenizer: Any, given: dict[str, Any], message: str) -> None:
    refused(model, tokenizer, message, **given)


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ({"prompt": LONG}, "of the curvature_forget set has 200. tokens, more than max_length=1024"),
        ({"prompt": ""}, "Row 0 of the curvature_forget set needs text in column prompt"),
        ({}, "Row 0 of the curvature_forget set needs text in column prompt"),
    ],
)
def test_held_out_prompts(model: Any, tokenizer: Any, probe: dict[str, str], message: str) -> None:
    """Which the default asks, and the paper's settings answer for a loss."""
    forget = [{**row, "refusal": "i cannot"} for row in rows("harm", 4)]
    given = {"forget": forget, "curvature_forget": [probe], "config": RestoreConfig(iterations=1)}
    refused(model, tokenizer, message, **given)


def test_held_out_prompts_longer_than_the_model_s_positions(model: Any, tokenizer: Any) -> None:
    model.config.max_position_embeddings = 40
    forget = [{**row, "refusal": "i cannot"} for row in rows("harm", 4)]
    probes, config = [{"prompt": "harmful prompt"}], RestoreConfig(max_new_tokens=3)
    message = "curvature_forget set has 20 tokens and is answered with up to 24, but the model has 40"
    refused(model, tokenizer, message, forget=forget, curvature_forget=probes, config=config)


def test_rows_longer_than_the_model_s_positions(model: Any, tokenizer: Any) -> None:
    model.config.max_position_embeddings = 30
    refused(model, tokenizer, "Row 7 of the retain_1 set has .* tokens, but the model has 30 positions|retain",
            retain=[*rows("say", 7), {"prompt": "a", "response": "b" * 40}])  # fmt: skip
    model.config.max_position_embeddings = 20
    refused(model, tokenizer, "of the forget set has 2. tokens and is answered with up to 3, but the model has 20",
            forget=rows("harmful prompt", 4), retain=rows("x", 8, "y"))  # fmt: skip


def test_a_tokenizer_of_another_model(model: Any, tokenizer: Any) -> None:
    model.config.vocab_size = 100
    refused(model, tokenizer, "has token id 2.., but the model's vocabulary has 100 entries")


def test_a_forget_answer_of_special_tokens_is_refused(model: Any, tokenizer: Any) -> None:
    from dataclasses import replace

    target = [{"prompt": f"harm {i}", "target": "</s>"} for i in range(4)]
    config = replace(CONFIG, forget_target="affirmative")
    refused(model, tokenizer, "special tokens alone", forget=target, config=config)


@contextmanager
def poisoned(model: Any, at: int, value: float) -> Iterator[list[bool]]:
    """Makes the logits of the `at`-th forward pass not finite; notes which passes were for gradients."""
    seen: list[bool] = []

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        seen.append(torch.is_grad_enabled())
        return output + value if len(seen) - 1 == at else None

    handle = model.get_base_model().lm_head.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def test_a_loss_that_is_not_finite_at_any_stage(model: Any, tokenizer: Any) -> None:
    """At the reference, a probe, the forget gradient or the loss after an update; a trial step is merely shortened."""
    start = state(model)
    sets = {"forget": rows("harm", 4), "retain": rows("say", 8), "config": CONFIG}
    with poisoned(model, -1, 0.0) as seen:
        restore(model, tokenizer, **sets)
    model.load_state_dict(start)
    stages = set()
    for at in range(CONFIG.max_new_tokens, len(seen)):  # the first passes answer the forget prompts
        failure = ""
        with poisoned(model, at, float("nan")):
            try:
                restore(model, tokenizer, **sets)
            except InputError as error:
                failure = str(error)
        stages.add(failure.split(" (")[0])
        assert not failure or (" is nan" in failure and not changed(start, state(model)))
        model.load_state_dict(start)
    assert {"The gradient norm on the forget set", "The loss on the retain_check set"} <= stages
    assert any("retain_1" in stage for stage in stages)
    assert "" in stages  # a trial of the line search


def test_a_gradient_that_is_not_finite(model: Any, tokenizer: Any) -> None:
    head = model.get_base_model().lm_head

    def spoil(module: Any, inputs: Any, output: torch.Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * float("inf"))

    handle = head.register_forward_hook(spoil)
    refused(model, tokenizer, r"gradient norm on the \w+ set .* is nan")
    handle.remove()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_an_adapter_that_is_not_finite(model: Any, tokenizer: Any, value: float) -> None:
    with torch.no_grad():
        last = [p for name, p in model.named_parameters() if "lora_B" in name][-1]
        last[0, 0] = value
    with pytest.raises(InputError, match="not all finite"):
        restore(model, tokenizer, forget=rows("harm", 4), retain=rows("say", 8), config=CONFIG)
    assert last.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"retain_check": rows("SAY ", 2)}, "2 of 2 retain_check prompts are among the other retain rows too"),
        ({"curvature_forget": rows("harm", 3)}, "3 of 4 forget prompts are among the curvature_forget rows too"),
        ({"retain": rows("say", 8) * 2}, "retain_check prompts are among the other retain rows too"),
    ],
)
def test_overlaps_on_one_side_give_a_warning(given: dict[str, Any], message: str) -> None:
    """They weaken a set, but a loss can still be raised or kept on it."""
    sets = {"forget": rows("harm", 4), "retain": rows("say", 8), "retain_check": None, "curvature_forget": None}
    with pytest.warns(UserWarning, match=message):
        split(**{**sets, **given}, config=CONFIG)


def test_disjoint_sets_give_none(recwarn: pytest.WarningsRecorder) -> None:
    split(rows("harm", 4), rows("say", 8), rows("check", 4), rows("probe", 4), CONFIG)
    assert not recwarn
