from pathlib import Path
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.objective import (
    NonFiniteError,
    TokenMeanLoss,
    evaluation_mode,
    power_below,
    probe_batches,
)
from safebasin.restore.losses.passes import Passes
from safebasin.restore.models.loading import load_base, new_adapter
from safebasin.restore.models.parameters import FlatParameters
from torch import nn
from torch.nn import functional

ROWS = [Encoded(tuple(range(5, 5 + length)), start) for length, start in [(9, 4), (14, 3), (7, 6), (20, 11), (5, 1)]]


def brute_force(model: Any, rows: list[Encoded] = ROWS) -> float:
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor(row.ids, device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0].double()
        losses = functional.cross_entropy(logits[:-1], ids[1:], reduction="none")[row.start - 1 :]
        total, count = total + float(losses.sum()), count + len(losses)
    return total / count


@pytest.fixture
def flat(model: Any) -> FlatParameters:
    return FlatParameters(model)


@pytest.mark.parametrize("micro", [1, 2, 5])
def test_the_loss_is_the_mean_over_all_response_tokens(model: Any, flat: FlatParameters, micro: int) -> None:
    loss = TokenMeanLoss(model, flat, ROWS, micro, pad_id=1)
    assert loss.loss() == pytest.approx(brute_force(model), abs=1e-6)
    assert loss.loss_and_gradient()[0] == pytest.approx(loss.loss(), abs=1e-7)


@pytest.mark.parametrize("micro", [1, 2, 5])
def test_the_losses_of_rows_are_the_means_over_each_from_the_shortest_to_the_longest(
    model: Any, flat: FlatParameters, micro: int
) -> None:
    """Without dropout, and without gradients."""
    expected = [brute_force(model, [row]) for row in sorted(ROWS, key=lambda row: len(row.ids))]
    passes = Passes()
    loss = TokenMeanLoss(model.train(), flat, ROWS, micro, pad_id=1, passes=passes)
    assert loss.row_losses() == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 3) for value in expected}) == len(ROWS)
    assert (passes.forward, passes.gradient) == (len(ROWS), 0)
    assert all(module.training for module in model.modules())


def test_gradients_do_not_depend_on_micro_batches(model: Any, flat: FlatParameters) -> None:
    one, all_at_once = (TokenMeanLoss(model, flat, ROWS, micro, 1).loss_and_gradient()[1] for micro in (1, 5))
    assert one.norm() > 1e-2
    assert (one - all_at_once).norm() < 1e-6 * max(1.0, float(one.norm()))


def test_the_gradient_is_that_of_the_loss(model: Any, flat: FlatParameters) -> None:
    loss = TokenMeanLoss(model, flat, ROWS, 2, 1)
    gradient = loss.loss_and_gradient()[1]
    direction = gradient / gradient.norm()
    with flat.preserved():
        flat.add(direction, 1e-2)
        above = loss.loss()
        flat.add(direction, -2e-2)
        below = loss.loss()
    assert (above - below) / 2e-2 == pytest.approx(float(gradient.norm()), rel=1e-2)


class Tiny(TokenMeanLoss):
    """The loss times 1e-4, of what would be a hundred times as many tokens: a set near its minimum."""

    def batch_sum(self, batch: Any) -> torch.Tensor:
        return super().batch_sum(batch) * 1e-4


def test_small_gradients_of_large_sets_survive_float16(base: Path) -> None:
    """Divided by the tokens of all rows before the backward pass, they would round to nothing."""
    found = []
    for dtype in ("float32", "float16"):
        model = new_adapter(load_base(str(base), dtype=dtype, device="cpu"), {"rank": 2}, seed=0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.constant_(parameter, 0.01)
        loss = Tiny(model, FlatParameters(model), ROWS, 2, 1)
        loss.count *= 1000
        found.append(loss.loss_and_gradient()[1].double())
    exact, coarse = found
    assert torch.cosine_similarity(exact, coarse, dim=0) > 0.999
    assert float(coarse.norm() / exact.norm()) == pytest.approx(1, abs=0.01)


def test_the_scaling_changes_no_bit_in_float32(model: Any, flat: FlatParameters) -> None:
    loss = TokenMeanLoss(model, flat, ROWS, 2, 1)
    found = loss.loss_and_gradient()[1]
    with evaluation_mode(model):
        for batch in loss.batches:
            (loss.batch_sum(batch) / loss.count).backward()
    assert torch.equal(found, flat.gradient())


@pytest.mark.parametrize(("count", "power"), [(1, 1), (2, 2), (3, 2), (1000, 512), (1024, 1024)])
def test_the_power_of_two_below(count: int, power: int) -> None:
    assert power_below(count) == power


def test_nothing_is_left_behind(model: Any, flat: FlatParameters) -> None:
    model.train()
    before = flat.get()
    TokenMeanLoss(model, flat, ROWS, 2, 1).loss_and_gradient()
    assert torch.equal(flat.get(), before)
    assert not flat.gradient().any()
    assert all(module.training for module in model.modules())


def test_dropout_is_off(model: Any, flat: FlatParameters) -> None:
    for name, module in list(model.named_modules()):
        if name.endswith("lora_dropout"):
            module["default"] = torch.nn.Dropout(0.5)
    model.train()
    ids = torch.tensor([ROWS[0].ids], device=model.device)
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    loss = TokenMeanLoss(model, flat, ROWS, 2, 1)
    assert loss.loss() == loss.loss()


def test_evaluation_mode_puts_mixed_modes_back() -> None:
    net = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
    net[1].eval()
    with evaluation_mode(net):
        assert not net[0].training
    assert (net.training, net[0].training, net[1].training) == (True, True, False)


@pytest.mark.parametrize("method", ["loss", "loss_and_gradient"])
def test_a_loss_that_is_not_finite_is_named(model: Any, flat: FlatParameters, method: str) -> None:
    flat.set(torch.full((flat.size,), float("nan")))
    with pytest.raises(NonFiniteError, match=r"on the retain set \(5 rows\) is nan"):
        getattr(TokenMeanLoss(model, flat, ROWS, 2, 1, "retain"), method)()


def test_an_empty_set_is_refused(model: Any, flat: FlatParameters) -> None:
    with pytest.raises(InputError, match="forget set is empty"):
        TokenMeanLoss(model, flat, [], 2, 1, "forget")


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(250, 64, [63, 63, 63, 61]), (256, 64, [64] * 4), (10, 64, [3, 3, 3, 1]), (400, 50, [50] * 5)],
)
def test_probe_batches(model: Any, flat: FlatParameters, count: int, size: int, sizes: list[int]) -> None:
    rows = [Encoded((i, i), 1) for i in range(count)]
    made = probe_batches(model, flat, rows, size=size, micro_batch_size=4, pad_id=1, name="x", seed="0", limit=5)
    assert [len(batch._rows) for batch in made] == sizes
    flattened = [row for batch in made for row in batch._rows]
    assert len(set(flattened)) == len(flattened)
    assert flattened != rows[: len(flattened)]
