from itertools import combinations

import pytest
import torch
from safebasin.restore.models.lora_files import Factors
from safebasin.restore.repairs.columns import (
    COMPENSATIONS,
    column_costs,
    compensated,
    damped,
    keep_columns,
    prefix,
    safety_loss,
)
from torch import Tensor

D, RANK, OUT = 8, 3, 6


def problem(seed: int, d: int = D) -> tuple[Factors, Tensor]:
    """An update and a random correlated H, in float64."""
    generator = torch.Generator().manual_seed(seed)
    a, b, x = (torch.randn(*shape, generator=generator).double() for shape in ((RANK, d), (OUT, RANK), (d, 3 * d)))
    mix = torch.randn(d, d, generator=generator).double()
    x = mix @ x
    return Factors(a, b, 1.7), 2 * x @ x.T / x.shape[1]


def mask(columns: tuple[int, ...], d: int = D) -> Tensor:
    kept = torch.zeros(d, dtype=torch.bool)
    kept[list(columns)] = True
    return kept


def dense_loss(change: Tensor, h: Tensor) -> float:
    return float((change @ h @ change.T).trace() / 2)


def paper_sum(change: Tensor, kept: Tensor, inverse: Tensor) -> Tensor:
    """The paper's compensation, entry by entry: K_iF = sum over j in S of d_ij / h_j [H^-1]_jF."""
    found = change * kept
    for i in range(len(change)):
        for f in (~kept).nonzero().flatten().tolist():
            for j in kept.nonzero().flatten().tolist():
                found[i, f] += change[i, j] / inverse[j, j] * inverse[j, f]
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_losses_and_costs_are_the_dense_ones(seed: int) -> None:
    factors, h = problem(seed)
    change, inverse = factors.dense, torch.linalg.inv(h)
    assert safety_loss(factors, h) == pytest.approx(dense_loss(change, h))
    expected = (change**2).sum(0) / (2 * inverse.diagonal())
    torch.testing.assert_close(column_costs(factors, inverse.diagonal()), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("columns", [(), (2,), (0, 3, 5), tuple(range(7)), tuple(range(8))])
def test_a_t_is_the_dense_compensation_row_by_row(seed: int, columns: tuple[int, ...]) -> None:
    factors, h = problem(seed)
    change, inverse, kept = factors.dense, torch.linalg.inv(h), mask(columns)
    made = {how: compensated(factors.a, kept, h, how, inverse) for how in COMPENSATIONS}
    found = {how: factors.scale * factors.b @ a for how, a in made.items()}
    torch.testing.assert_close(found["sum"], paper_sum(change, kept, inverse))
    torch.testing.assert_close(found["none"], change * kept)
    joint = found["joint"]
    torch.testing.assert_close(joint * kept, change * kept)
    gradient = joint @ h
    assert (gradient[:, ~kept].abs() <= 1e-9 * gradient.abs().max()).all()  # of the safety loss, where D is free
    assert all(dense_loss(joint, h) <= dense_loss(other, h) * (1 + 1e-12) for other in found.values())
    if len(columns) in (1, D):
        torch.testing.assert_close(joint, found["sum"])


def test_one_kept_column_follows_the_formula_by_hand() -> None:
    factors, h = problem(0)
    inverse, kept = torch.linalg.inv(h), mask((2,))
    found = compensated(factors.a, kept, h, "joint", inverse)
    torch.testing.assert_close(found, factors.a[:, 2:3] * inverse[2] / inverse[2, 2])


def test_the_papers_sum_can_be_worse_than_no_compensation() -> None:
    """Which is why it is an option and no default."""
    worse = 0
    for seed in range(40):
        factors, h = problem(seed, 16)
        inverse, kept = torch.linalg.inv(h), mask(tuple(range(8)), 16)
        losses = {
            how: safety_loss(factors._replace(a=compensated(factors.a, kept, h, how, inverse)), h)
            for how in COMPENSATIONS
        }
        assert losses["joint"] <= min(losses["sum"], losses["none"]) * (1 + 1e-12)
        worse += losses["sum"] > losses["none"]
    assert 0 < worse < 40


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_columns_kept_are_the_greedy_ones_within_the_budget(seed: int, share: float) -> None:
    factors, h = problem(seed)
    single = torch.linalg.inv(h).diagonal()
    costs = column_costs(factors, single)
    budget = share * float(costs.sum())
    kept = prefix(costs, single, budget)
    chosen = set(kept.nonzero().flatten().tolist())
    assert float(costs[kept].sum()) <= budget * (1 + 1e-9)
    gain = 2 * single * costs  # squared norms of the columns
    density = gain / costs
    sets = [set(one) for size in range(D + 1) for one in combinations(range(D), size)]
    leading = [
        one for one in sets
        if all(density[i] > density[j] for i in one for j in set(range(D)) - one) and costs[list(one)].sum() <= budget
    ]  # fmt: skip
    assert chosen == max(leading, key=len)
    most = max(float(gain[list(one)].sum()) for one in sets if costs[list(one)].sum() <= budget)
    assert float(gain[kept].sum()) + float(gain.max()) >= most  # at most an item below the knapsack's optimum


def test_no_budget_is_the_aligned_model_and_all_of_it_the_tuned_one_bit_for_bit() -> None:
    factors, h = problem(0)
    single = Factors(factors.a.float(), factors.b.float(), 1.7)
    for given in ({"s": 0.0, "keep": None}, {"s": None, "keep": 0.0}):
        found = keep_columns(single, h, how="joint", damping=0.01, **given)  # type: ignore[arg-type]
        assert (found.columns, found.cost, found.losses["joint"]) == (0, 0, 0)
        assert not found.a.any()
    for given in ({"s": float("inf"), "keep": None}, {"s": None, "keep": 1.0}):
        found = keep_columns(single, h, how="joint", damping=0.01, **given)  # type: ignore[arg-type]
        assert found.columns == D
        assert torch.equal(found.a, single.a)
        assert found.losses["joint"] == found.losses["tuned"] == pytest.approx(dense_loss(single.dense, h))


def test_the_papers_budget_is_in_units_of_weights() -> None:
    factors, h = problem(0)
    single = torch.linalg.inv(damped(h, 0.01)).diagonal()
    found = keep_columns(factors, h, 5.0, None, "joint", 0.01)
    budget = 5.0 * float((1 / (2 * single)).mean())
    assert 0 < found.columns < D
    assert found.cost <= budget
    other = keep_columns(factors, h, None, budget / found.total, "joint", 0.01)
    assert torch.equal(other.a, found.a)
    larger = keep_columns(factors._replace(scale=17.0), h, 5.0, None, "joint", 0.01)
    assert larger.columns < found.columns


def test_uncorrelated_inputs_need_no_compensation() -> None:
    factors, _ = problem(0)
    h, kept = 3.0 * torch.eye(D).double(), mask((1, 4))
    for how in COMPENSATIONS:
        torch.testing.assert_close(compensated(factors.a, kept, h, how, torch.linalg.inv(h)), factors.a * kept)


def test_an_input_that_is_never_active_costs_little_and_is_kept_first() -> None:
    factors, h = problem(0)
    h[2], h[:, 2] = 0, 0
    found = keep_columns(factors, h, None, 0.2, "joint", 0.01)
    assert torch.equal(found.a[:, 2], factors.a[:, 2])
    assert all(value >= 0 for value in found.losses.values())
