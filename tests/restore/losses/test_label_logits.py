"""Logits at the labels alone, against logits everywhere."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import Encoded, batches
from safebasin.restore.losses.label_logits import LabelModel, micro_batches
from safebasin.restore.losses.objective import TokenMeanLoss
from safebasin.restore.models.parameters import FlatParameters
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2ForCausalLM

ROWS = [Encoded(tuple(range(5, 5 + length)), start) for length, start in [(9, 4), (14, 3), (7, 6), (20, 11), (5, 1)]]
LABELS = sum(row.targets for row in ROWS)


def expected(model: Any) -> list[Tensor]:
    """Logits [targets, V] of each row, by a pass of its own, shortest row first."""
    ordered = sorted(ROWS, key=lambda row: len(row.ids))
    whole = [model(input_ids=torch.tensor([row.ids], device=model.device)).logits[0] for row in ordered]
    return [logits[row.start - 1 : -1] for row, logits in zip(ordered, whole, strict=True)]


def found(run: LabelModel, size: int) -> list[Tensor]:
    made = []
    for batch in micro_batches(ROWS, size, 1, run._model.device):
        logits, targets, rows = run(batch)
        assert rows.bincount().tolist() == list(batch.counts)
        last = batch.input_ids.gather(1, batch.attention_mask.sum(1, keepdim=True) - 1).squeeze(1)
        assert torch.equal(targets[torch.tensor(batch.counts).cumsum(0) - 1], last)
        made += logits.split(batch.counts)
    return made


def close(one: list[Tensor], other: list[Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True)
def without_gradients() -> Any:
    with torch.no_grad():
        yield


@pytest.fixture
def seen(model: Any) -> list[int]:
    """How many tokens the output head has been given."""
    counts: list[int] = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, inputs, output: counts.append(inputs[0].shape[:-1].numel())
    )
    return counts


@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_head_sees_the_predicting_tokens_alone(model: Any, seen: list[int], size: int) -> None:
    made = found(LabelModel(model), size)
    assert sum(seen) == LABELS
    close(made, expected(model))


def test_the_hook_on_the_head_goes_even_after_an_exception(model: Any) -> None:
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        LabelModel(model)(micro_batches(ROWS, 2, 1, model.device)[0])
    assert not head._forward_pre_hooks


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("short", [True, False])
def test_without_a_head_logits_run_from_the_first_label_on_where_they_can(
    model: Any, seen: list[int], size: int, short: bool
) -> None:
    run = LabelModel(model)
    run._head, run._short = None, short
    made = found(run, size)
    widths = [batch.input_ids.numel() for batch in micro_batches(ROWS, size, 1)]
    assert sum(seen) > LABELS
    assert (sum(seen) < sum(widths)) == short
    close(made, expected(model))


def test_a_head_that_is_not_called_as_a_module_is_found_out(model: Any) -> None:
    run = LabelModel(model)
    run._head = nn.Linear(1, 1)
    close(found(run, 2), expected(model))
    assert run._head is None


def test_an_adapter_on_the_head_is_part_of_it(model: Any, seen: list[int]) -> None:
    config = LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(model.unload(), config).eval()
    made = found(LabelModel(adapted), 2)
    close(made, expected(adapted))
    with adapted.disable_adapter():
        assert not torch.allclose(made[0], expected(adapted)[0], atol=1e-2)


def test_soft_capping_is_kept() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, initializer_range=1.0,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    made = found(LabelModel(model), 2)
    assert 0.45 < max(float(part.abs().max()) for part in made) <= 0.5
    close(made, expected(model))


def test_the_base_model_is_one_context_away(model: Any) -> None:
    loss = TokenMeanLoss(model, FlatParameters(model), ROWS, 5, 1)
    with model.disable_adapter():
        base = torch.cat(expected(model))
        torch.testing.assert_close(loss.label_logits(loss.batches[0]).logits, base, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(loss.label_logits(loss.batches[0]).logits, base, atol=1e-2)


def test_logits_of_another_shape_are_refused() -> None:
    class Classifier(nn.Module):
        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            return SimpleNamespace(logits=torch.zeros(len(input_ids) + 1, 3))

    with pytest.raises(InputError, match=r"logits of shape \[3, 3\]"):
        LabelModel(Classifier())(micro_batches(ROWS, 2, 1)[0])


def test_batches_are_as_wide_as_the_next_multiple_of_8_and_grouped_by_length() -> None:
    assert [tuple(batch["input_ids"].shape) for batch in batches(ROWS, 2, 1)] == [(2, 8), (2, 16), (1, 24)]
    assert sum(int(batch["attention_mask"].sum()) for batch in batches(ROWS, 2, 1)) == sum(len(r.ids) for r in ROWS)
