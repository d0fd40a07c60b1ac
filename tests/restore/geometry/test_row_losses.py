"""Per-example losses against one row at a time, with no batch and no padding."""

from typing import Any

import numpy as np
import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.geometry.measure import loss_rows
from safebasin.restore.geometry.row_losses import RowLosses
from safebasin.restore.geometry.texts import Asked, encoded, with_answers, with_refusals
from safebasin.restore.losses.encoding import Encoded, encode, prompt_ids
from torch.nn.functional import cross_entropy

HARMFUL = Asked.of("harmful", [{"prompt": f"harm {'x' * i}", "target": "sure"} for i in range(6)])
TASK = Asked.of("task", [{"prompt": f"say {i}", "response": "yes" * (i + 1)} for i in range(5)])


@torch.no_grad()
def naive(model: Any, row: Encoded) -> float:
    """The loss of one row by itself, from all its logits."""
    logits = model(input_ids=torch.tensor([row.ids], device=model.device)).logits[0].float().cpu()
    ids = torch.tensor(row.ids)
    return float(cross_entropy(logits[row.start - 1 : -1], ids[row.start :]))


@pytest.mark.parametrize("size", [1, 3, 100])
def test_each_row_has_its_own_loss_whatever_the_batch(model: Any, tokenizer: Any, size: int) -> None:
    rows = [encode(tokenizer, "p" * (7 * i % 5 + 1), "r" * (3 * i % 7 + 1)) for i in range(7)]
    rows += [Encoded(tuple(prompt_ids(tokenizer, "ask " * i)), 1) for i in (4, 1)]
    found = RowLosses(rows, size, pad=1).means(model)
    assert found == pytest.approx([naive(model, row) for row in rows], rel=1e-5)
    assert RowLosses(rows, size, pad=7).means(model) == pytest.approx(found, rel=1e-5)


def test_sums_are_over_tokens_and_dropout_is_off(model: Any, tokenizer: Any) -> None:
    rows = [encode(tokenizer, "ask", "yes" * i) for i in (1, 5)]
    losses = RowLosses(rows, 2, pad=1)
    assert losses.sums(model) == pytest.approx(losses.means(model) * [row.targets for row in rows])
    before = losses.means(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    model.train()
    assert np.array_equal(losses.means(model), before)
    assert model.training


def test_every_set_has_the_targets_that_it_can_have(tokenizer: Any) -> None:
    harmful, task = encoded(tokenizer, HARMFUL), encoded(tokenizer, TASK)
    assert [*harmful] == ["prompt", "affirmative", "prompt+pads"]
    assert [*task] == ["prompt", "answer", "prompt+pads"]
    first = HARMFUL.rows[0]["prompt"]
    assert harmful["prompt"][0] == Encoded(tuple(prompt_ids(tokenizer, first)), 1)
    assert task["answer"][1] == encode(tokenizer, "say 1", "yesyes")
    opening, whole = harmful["affirmative"][0], encode(tokenizer, first, "sure")
    assert opening
    assert whole.ids[: len(opening.ids)] == opening.ids
    assert len(opening.ids) < len(whole.ids), "an opening ends no turn"


def test_counted_pads_are_a_target_of_their_own(model: Any, tokenizer: Any) -> None:
    found = encoded(tokenizer, HARMFUL)
    widths = {len(row.ids) for row in found["prompt+pads"] if row}
    assert widths == {max(len(row.ids) for row in found["prompt"] if row)}
    table = loss_rows("tuned", model, {"harmful": found}, 4, 1)
    lost = {target: {row["row"]: row["loss"] for row in table if row["target"] == target} for target in found}
    assert lost["prompt"][5] == pytest.approx(lost["prompt+pads"][5], rel=1e-5)  # the longest row has no padding
    assert lost["prompt"][0] != pytest.approx(lost["prompt+pads"][0], rel=1e-3)


def test_answers_and_refusals_are_the_models_own_and_rows_without_one_are_left_out(
    tuned: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safebasin.restore.geometry import texts

    said = {f"harm {'x' * i}": answer for i, answer in enumerate(["i cannot", "yes", "", "i cannot", "no end", "yes"])}

    def answers(model: Any, tokenizer: Any, prompts: Any, longest: int, size: int) -> list[tuple[str, bool]]:
        return [(said[prompt], said[prompt] != "no end") for prompt in prompts]

    monkeypatch.setattr(texts, "own_answers", answers)
    answered = with_answers(tuned, tokenizer, HARMFUL, 8, 4)
    both = with_refusals(tuned, tokenizer, answered, 8, 4)
    made = encoded(tokenizer, both)
    assert [row is not None for row in made["answer"]] == [False, True, False, False, True, True]
    assert [row is not None for row in made["refusal"]] == [True, False, False, True, False, False]
    whole, cut = made["answer"][1], made["answer"][4]
    assert whole == encode(tokenizer, "harm x", "yes")
    assert cut
    assert len(cut.ids) < len(encode(tokenizer, "harm xxxx", "no end").ids)
    assert with_answers(tuned, tokenizer, TASK, 8, 4) is TASK


def test_a_row_that_does_not_fit_is_refused(model: Any, tokenizer: Any) -> None:
    sets = encoded(tokenizer, Asked.of("task", [{"prompt": "p" * 3000, "response": "yes"}]), 4000)
    with pytest.raises(InputError, match="positions"):
        loss_rows("tuned", model, {"task": sets}, 4, 1)
