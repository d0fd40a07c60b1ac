import pytest
import torch
from safebasin.restore.repairs.closed_forms import Ridge, in_rank_space
from torch import Tensor

D, RANK, OUT = 8, 3, 6


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def moment(width: int, tokens: int, seed: int) -> Tensor:
    x = random(width, tokens, seed=seed)
    return x @ x.T / tokens


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("tokens", [5, 40])
def test_ridge_is_where_its_gradient_vanishes(strength: float, tokens: int) -> None:
    a, b, h, s = random(RANK, D, seed=0), random(OUT, RANK, seed=1), 2 * moment(D, tokens, 2), 1.7
    mu = float(h.diagonal().mean()) / (2 * strength)
    change = (s * b @ Ridge(a, h).at(strength)).requires_grad_()
    loss = (change @ h @ change.T).trace() / 2 + mu * (change - s * b @ a).square().sum()
    (gradient,) = torch.autograd.grad(loss, change)
    assert gradient.abs().max() <= 1e-12 * h.abs().max() * a.abs().max() * 10


def test_ridge_goes_from_the_update_to_nothing_where_refusals_go_in() -> None:
    a, h = random(RANK, D, seed=0), 2 * moment(D, 5, 2)
    torch.testing.assert_close(Ridge(a, h).at(0.0), a)
    gone = Ridge(a, h).at(1e9)
    assert (gone @ h @ gone.T).trace() <= 1e-6
    seen = torch.linalg.eigh(h)[1][:, -5:]
    torch.testing.assert_close(gone, a - a @ seen @ seen.T, rtol=0, atol=1e-5)  # what no refusal reaches is kept
    losses = [float((one @ h @ one.T).trace()) for one in (Ridge(a, h).at(t) for t in (0.0, 0.5, 2.0, 8.0))]
    assert losses == sorted(losses, reverse=True)
    torch.testing.assert_close(Ridge(a, 9 * h).at(2.0), Ridge(a, h).at(2.0))  # the strength has no units
    assert torch.equal(Ridge(a, 0 * h).at(3.0).round(decimals=12), a.round(decimals=12))


@pytest.mark.parametrize("strength", [0.1, 1.0, 30.0])
def test_rank_space_is_where_its_gradient_vanishes(strength: float) -> None:
    b, task, safety = random(OUT, RANK, seed=0), moment(RANK, 9, 1), moment(RANK, 9, 2)
    weight = strength * float(task.trace() / safety.trace())
    found = in_rank_space(b, task, safety, strength, damping=1e-12).requires_grad_()
    off = found - b
    loss = (off @ task @ off.T).trace() + weight * (found @ safety @ found.T).trace()
    (gradient,) = torch.autograd.grad(loss, found)
    assert gradient.abs().max() <= 1e-9


def test_rank_space_keeps_what_refusals_do_not_reach_and_takes_what_they_alone_reach() -> None:
    b = random(OUT, RANK, seed=0)
    task, safety = (
        torch.diag(torch.tensor([1.0, 0.0, 0.0])).double(),
        torch.diag(torch.tensor([0.0, 1.0, 0.0])).double(),
    )
    torch.testing.assert_close(in_rank_space(b, task, safety, 0.0), b)
    found = in_rank_space(b, task, safety, 1.0)
    torch.testing.assert_close(found[:, 0], b[:, 0])
    assert found[:, 1].abs().max() <= 1e-5
    torch.testing.assert_close(found[:, 2], b[:, 2])
    torch.testing.assert_close(in_rank_space(b, task, 0 * safety, 5.0), b)
    assert in_rank_space(b, 0 * task, safety, 5.0).isfinite().all()
