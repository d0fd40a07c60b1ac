"""Shares of an update against dense matrices, updates without an example against restoring again, costs by hand."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.curvature.lbfgs import CurvatureHistory
from safebasin.restore.geometry.influence import costs, encoded_rows, first_update, shares
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.of_model import Losses
from torch import Tensor

from ..dense import cross_entropy, divergence, flat_gradient, matrix, mean, small_losses

PAIRS = RestoreConfig.from_preset("paper", pairs=4, batch_size=2, epsilon=None, epsilon_share=None, scale="newton")
PAPER = replace(PAIRS, scale="trust", epsilon=0.1)
OURS = RestoreConfig(epsilon=0.5, retain_rows=4, batch_size=2, damping=4.0)


@pytest.fixture
def losses() -> Losses:
    return small_losses()


def bits(losses: Losses) -> Tensor:
    return losses.parameters.get().view(torch.int32)


def dense_inverse(history: CurvatureHistory) -> Tensor:
    """H of the pairs that a history holds, by the textbook recursion, [n, n] float64."""
    size = history._block.shape[2]
    h = history.gamma * torch.eye(size, dtype=torch.float64)
    for slot in history._slots:
        s, y = history._block[:, slot].double()
        v = torch.eye(size, dtype=torch.float64) - torch.outer(y, s) / (s @ y)
        h = v.T @ h @ v + torch.outer(s, s) / (s @ y)
    return h


def own_gradients(losses: Losses, name: str, of: Callable[..., Tensor]) -> dict[Encoded, Tensor]:
    """The gradient of each row's summed loss, by autograd from a pass without padding, float64."""
    model = losses.model
    return {row: flat_gradient(of(model, row), model).double() for row in losses.rows[name]}


def test_shares_are_those_of_a_dense_inverse_of_the_pairs_and_sum_to_one(losses: Losses) -> None:
    update = first_update(losses, PAIRS)
    assert isinstance(update.curvature, CurvatureHistory)
    found, h = shares(update, losses), dense_inverse(update.curvature)
    gradients = own_gradients(losses, "forget", cross_entropy)
    count = sum(row.targets for row in losses.rows["forget"])
    g = -sum(gradients.values(), torch.zeros(())) / count  # ascended
    torch.testing.assert_close(update.gradient.double(), g, atol=1e-5, rtol=1e-3)
    known = {row: float(-own @ h @ g / count / (g @ h @ g)) for row, own in gradients.items()}
    assert {each.row for each in found} == set(known)
    for each in found:
        assert each.share == pytest.approx(known[each.row], rel=1e-3, abs=1e-4)
        assert each.gradient_norm == pytest.approx(float(gradients[each.row].norm()) / count, rel=1e-3)
        assert each.loss == pytest.approx(
            float(cross_entropy(losses.model, each.row).detach()) / each.row.targets, rel=1e-4
        )
    assert sum(each.share for each in found) == pytest.approx(1, abs=1e-4)
    assert [each.share for each in found] == sorted((each.share for each in found), reverse=True)
    assert max(each.share for each in found) > 1.5 / len(found), "shares differ"


def test_with_our_settings_refusals_and_retain_rows_share_the_update(losses: Losses) -> None:
    update = first_update(losses, OURS)
    found, h = shares(update, losses), matrix(update.curvature.inverse_product, losses.parameters.size)
    weights = {term.name: term.weight for term in update.terms}
    assert [*weights] == ["base_divergence", "retain_batch_loss"]
    refusals = own_gradients(losses, "refusals", divergence)
    batch = encoded_rows(update.terms[1].objective)  # type: ignore[arg-type]
    assert len(batch) == 4
    assert set(batch) <= set(losses.rows["retain"])
    retain = {row: flat_gradient(cross_entropy(losses.model, row), losses.model).double() for row in batch}
    parts = [
        (name, row, weights[name] * own / sum(each.targets for each in rows))
        for name, rows in (("base_divergence", refusals), ("retain_batch_loss", retain))
        for row, own in rows.items()
    ]
    g = sum((part for _, _, part in parts), torch.zeros(()))
    torch.testing.assert_close(update.gradient.double(), g, atol=1e-5, rtol=1e-3)
    direction = h @ g
    known = {(name, row): float(part @ direction / (g @ direction)) for name, row, part in parts}
    assert {(each.term, each.row): each.share for each in found} == pytest.approx(known, rel=1e-2, abs=1e-3)
    assert sum(each.share for each in found) == pytest.approx(1, abs=1e-3)


def without(losses: Losses, name: str, row: Encoded) -> Losses:
    rows = {**losses.rows, name: [each for each in losses.rows[name] if each != row]}
    return Losses(losses.model, losses.parameters, rows, losses.pad, losses.micro_batch_size, losses.seed)


def angle(one: Tensor, other: Tensor) -> float:
    cosine = float(one.double() @ other.double() / one.double().norm() / other.double().norm())
    return math.degrees(math.acos(min(1.0, cosine)))


def test_restoring_without_an_example_takes_the_update_of_the_closed_form(losses: Losses) -> None:
    update = first_update(losses, PAIRS)
    assert isinstance(update.curvature, CurvatureHistory)
    h, gradients = dense_inverse(update.curvature), own_gradients(losses, "forget", cross_entropy)
    total, tokens = sum(gradients.values(), torch.zeros(())), sum(row.targets for row in losses.rows["forget"])
    torch.testing.assert_close(update.step.double(), h @ total / tokens, atol=1e-5, rtol=2e-3)
    turns = {each.row: each.turn for each in shares(update, losses)}
    for row, own in gradients.items():
        again = first_update(without(losses, "forget", row), PAIRS)
        closed = h @ (total - own) / (tokens - row.targets)
        assert float((again.step - closed).norm() / closed.norm()) < 2e-3
        assert turns[row] == pytest.approx(angle(update.step, again.step), abs=0.2)
    assert max(turns.values()) > 2, "what is left out matters"


def test_leaving_out_a_refusal_gives_the_others_its_weight(losses: Losses) -> None:
    update = first_update(losses, OURS)
    h = matrix(update.curvature.inverse_product, losses.parameters.size)
    refusals = losses.rows["refusals"]
    for each in shares(update, losses):
        if each.term == "base_divergence":
            others = [row for row in refusals if row != each.row]
            change = mean(divergence, losses.model, others) - mean(divergence, losses.model, refusals)
            g = update.gradient.double() + flat_gradient(change, losses.model).double()
            assert each.turn == pytest.approx(angle(h @ update.gradient.double(), h @ g), abs=0.3)


def test_an_only_example_is_all_of_the_update(losses: Losses) -> None:
    alone = replace(losses, rows={**losses.rows, "forget": losses.rows["forget"][:1]})
    (found,) = shares(first_update(alone, PAIRS), alone)
    assert found.share == pytest.approx(1, abs=1e-5)
    assert math.isnan(found.turn)


def test_costs_are_slopes_and_differences_along_the_step_that_the_restoration_takes(losses: Losses) -> None:
    before, update = bits(losses), first_update(losses, PAPER)
    assert torch.equal(bits(losses), before)
    rows = losses.rows["retain_check"]
    found = costs(update, losses, rows)
    assert torch.equal(bits(losses), before)
    assert [each.cost for each in found] == sorted((each.cost for each in found), reverse=True)
    first = {row: float(cross_entropy(losses.model, row).detach()) / row.targets for row in rows}
    slopes = {
        row: float(flat_gradient(cross_entropy(losses.model, row), losses.model) @ update.step) / row.targets
        for row in rows
    }
    losses.parameters.add(update.step)
    for each in found:
        row = rows[each.place]
        assert each.tokens == row.targets
        assert each.before == pytest.approx(first[row], rel=1e-5)
        assert each.after == pytest.approx(float(cross_entropy(losses.model, row).detach()) / row.targets, rel=1e-5)
        assert each.first_order == pytest.approx(slopes[row], rel=1e-3, abs=1e-5)
        assert each.to_dict()["cost"] == each.after - each.before
    retain = sum(each.after * each.tokens for each in found) / sum(each.tokens for each in found)
    assert retain == pytest.approx(update.told["retain_loss"], rel=1e-5)
    assert retain <= update.told["retain_loss_before"] + 0.1


def test_projected_gradients_still_sum_to_one(losses: Losses) -> None:
    config = replace(PAIRS, project=1)
    found = shares(first_update(losses, config), losses)
    assert sum(each.share for each in found) == pytest.approx(1, abs=1e-3)


def test_an_update_that_is_not_taken_is_not_explained(losses: Losses) -> None:
    before = bits(losses)
    with pytest.raises(InputError, match="takes no first update"):
        first_update(losses, replace(PAPER, epsilon=1e-9, halvings=0))
    assert torch.equal(bits(losses), before)


def test_progress_counts_examples(losses: Losses) -> None:
    told: list[Any] = []
    update = first_update(losses, PAIRS)
    shares(update, losses, lambda *counts: told.append(counts))
    assert told == [(number, 6) for number in range(1, 7)]


def test_the_update_is_the_first_of_the_restoration(losses: Losses) -> None:
    from safebasin.restore.restoration.aim import make_aim
    from safebasin.restore.restoration.loop import restore_parameters

    update, start = first_update(losses, OURS), losses.parameters.get()
    steps: list[Tensor] = []
    restore_parameters(
        losses.parameters, make_aim(losses, OURS), losses.on("retain_check"), replace(OURS, iterations=3),
        on_update=lambda number: steps.append(losses.parameters.get()),
    )  # fmt: skip
    assert torch.equal(steps[0] - start, update.step)
