"""The loss of suffixes against one forward pass each, and its gradient against one-hot vectors and differences."""

import copy

import pytest
import torch
from safebasin.restore.attacks.suffix_loss import SuffixLoss
from torch import Tensor, nn

from .conftest import LENGTH, Aimed


def onehot_loss(given: Aimed, onehot: Tensor, table: Tensor) -> Tensor:
    """L of a suffix that is given as vectors over the vocabulary, [L, V], with embeddings [V, d]."""
    ids = torch.tensor([given.slot.whole(given.slot.start)], device=table.device)
    begin = len(given.slot.before)
    embedded = torch.cat([table[ids[0, :begin]], onehot @ table, table[ids[0, begin + LENGTH :]]])[None]
    logits = given.model(inputs_embeds=embedded).logits[0]
    targets = torch.tensor(given.slot.target, device=table.device)
    return nn.functional.cross_entropy(logits[-len(targets) - 1 : -1], targets)


def onehot_of(given: Aimed, table: Tensor) -> Tensor:
    return nn.functional.one_hot(torch.tensor(given.slot.start), len(table)).to(table)


def test_the_gradient_is_that_of_the_one_hot_vectors(given: Aimed) -> None:
    table = given.model.get_input_embeddings().weight.detach()
    onehot = onehot_of(given, table).requires_grad_()
    (expected,) = torch.autograd.grad(onehot_loss(given, onehot, table), onehot)
    found = given.loss.gradient(given.slot.start, given.tokens)
    torch.testing.assert_close(found, expected[:, list(given.tokens)], rtol=1e-4, atol=1e-5)


def test_the_gradient_is_what_differences_say(given: Aimed) -> None:
    double = given._replace(model=copy.deepcopy(given.model).double())
    table = double.model.get_input_embeddings().weight.detach()
    onehot, step = onehot_of(given, table), 3e-3  # its norms are computed in float32
    found = given.loss.gradient(given.slot.start, given.tokens)
    for place, column in ((0, 0), (1, 17), (2, 40), (3, 93)):
        moved = torch.zeros_like(onehot)
        moved[place, given.tokens[column]] = step
        with torch.no_grad():
            up, down = (float(onehot_loss(double, onehot + sign * moved, table)) for sign in (1, -1))
        assert float(found[place, column]) == pytest.approx((up - down) / (2 * step), rel=1e-2, abs=1e-3)


def test_embeddings_that_are_scaled_count_as_the_model_takes_them(given: Aimed) -> None:
    class Scaled(nn.Embedding):
        def forward(self, ids: Tensor) -> Tensor:
            return super().forward(ids) * 3

    model = copy.deepcopy(given.model)
    own = model.get_input_embeddings()
    scaled = Scaled(*own.weight.shape).requires_grad_(False)
    scaled.weight.data.copy_(own.weight / 3)
    model.set_input_embeddings(scaled)
    found = SuffixLoss(model, given.slot, 8).gradient(given.slot.start, given.tokens)
    torch.testing.assert_close(found, given.loss.gradient(given.slot.start, given.tokens), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 64])
def test_candidates_are_evaluated_as_one_by_one(given: Aimed, size: int) -> None:
    suffixes = [given.tokens[begin : begin + LENGTH] for begin in range(7)]
    scored = SuffixLoss(given.model, given.slot, size).of(suffixes)
    targets = torch.tensor(given.slot.target)
    for suffix, found in zip(suffixes, scored, strict=True):
        ids = torch.tensor([given.slot.whole(suffix)], device=given.model.device)
        with torch.no_grad():
            logits = given.model(input_ids=ids).logits[0, -len(targets) - 1 : -1].cpu()
        assert found.loss == pytest.approx(float(nn.functional.cross_entropy(logits, targets)), rel=1e-4)
        assert found.greedy == bool((logits.argmax(1) == targets).all())


def test_greedy_is_what_decoding_begins_with(attackable: Aimed) -> None:
    scored = attackable.loss.of([attackable.slot.start, attackable.known])
    assert [one.greedy for one in scored] == [False, True]


def test_the_model_is_left_as_it_was(given: Aimed) -> None:
    model = given.model.train()
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    weights = copy.deepcopy(model.state_dict())
    hooks = len(model.get_input_embeddings()._forward_hooks)
    given.loss.gradient(given.slot.start, given.tokens)
    given.loss.of([given.slot.start])
    assert any(flags.values())  # an adapter that can be trained
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert len(model.get_input_embeddings()._forward_hooks) == hooks
