"""What the settings make of the losses: terms, weights, curvature and projection, on the small model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safebasin.restore.aim import FORGET, REFUSALS, RETAIN, make_aim
from safebasin.restore.config import RestoreConfig
from safebasin.restore.divergence import BaseDivergence
from safebasin.restore.encoding import Encoded
from safebasin.restore.losses import Losses
from safebasin.restore.restoration import Aim
from safebasin.restore.terms import descent
from torch import Tensor

from .dense import cross_entropy, divergence, exact, flat_gradient, gauss_newton, mean, small_losses

FEW = {"retain_rows": 3, "batch_size": 2}
Make = Callable[..., Aim]


@pytest.fixture
def losses() -> Losses:
    return small_losses()


@pytest.fixture
def make(losses: Losses) -> Make:
    def call(**settings: Any) -> Aim:
        return make_aim(losses, RestoreConfig(**{**FEW, **settings}))

    return call


def weights(aim: Aim) -> dict[str, float]:
    return {term.name: term.weight for term in aim.terms(0)}


def rows_of(aim: Aim, iteration: int = 0) -> list[Encoded]:
    """Of the retain term."""
    found: list[Encoded] = aim.terms(iteration)[-1].objective._rows  # type: ignore[attr-defined]
    return found


def test_the_defaults_lower_the_divergence_and_the_retain_loss(losses: Losses, make: Make) -> None:
    aim = make()
    first = mean(divergence, exact(losses.model), losses.rows["refusals"]).item()
    assert weights(aim) == pytest.approx({REFUSALS: 1.0, RETAIN: first / 0.1}, rel=1e-4)
    assert [term.name for term in aim.fixed] == [REFUSALS]
    assert isinstance(aim.fixed[0].objective, BaseDivergence)


@pytest.mark.parametrize("epsilon", [0.05, 2.0])
def test_the_weight_of_the_retain_loss_is_the_first_values_over_epsilon(
    losses: Losses, make: Make, epsilon: float
) -> None:
    found = weights(make(ascend=0.5, refusals=2.0, epsilon=epsilon))
    forget = mean(cross_entropy, exact(losses.model), losses.rows["forget"]).item()
    away = mean(divergence, exact(losses.model), losses.rows["refusals"]).item()
    expected = {FORGET: -0.5, REFUSALS: 2.0, RETAIN: (0.5 * forget + 2.0 * away) / epsilon}
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_weight_stays_what_it_was_at_the_start(losses: Losses, make: Make) -> None:
    aim = make()
    before = weights(aim)
    losses.parameters.set(0.5 * losses.parameters.get())
    assert weights(aim) == before


def test_a_weight_that_is_given_is_taken(make: Make) -> None:
    assert weights(make(retain=3.0))[RETAIN] == 3.0
    assert RETAIN not in weights(make(retain=0.0))


def test_terms_without_weight_are_left_out_and_refusals_are_not_ascended(make: Make) -> None:
    assert weights(make(ascend=2.0, refusals=0.0, retain=0.0)) == {FORGET: -2.0}
    assert weights(make(ascend=2.0, refusals=0.0, retain=0.0, forget_target="refusal")) == {FORGET: 2.0}


def test_retain_rows_are_drawn_anew_in_each_iteration(losses: Losses, make: Make) -> None:
    aim = make()
    first, again, second = rows_of(aim, 0), rows_of(aim, 0), rows_of(aim, 1)
    assert first == again != second
    assert len(first) == len(second) == 3
    assert set(first) | set(second) <= set(losses.rows["retain"])


def test_the_gradient_is_that_of_the_weighted_sum(losses: Losses, make: Make) -> None:
    aim = make(ascend=0.5, refusals=2.0, retain=3.0)
    values, gradient = descent(aim.terms(0))
    twin = exact(losses.model)
    parts = [
        mean(cross_entropy, twin, losses.rows["forget"]), mean(divergence, twin, losses.rows["refusals"]),
        mean(cross_entropy, twin, rows_of(aim)),
    ]  # fmt: skip
    expected = flat_gradient(-0.5 * parts[0] + 2.0 * parts[1] + 3.0 * parts[2], twin)
    assert torch.allclose(gradient.double(), expected, rtol=1e-3, atol=1e-4)
    assert list(values.values()) == pytest.approx([part.item() for part in parts], rel=1e-4)


def estimate(aim: Aim, gradient: Tensor) -> Any:
    return aim.estimate(0, aim.terms(0), gradient, lambda done: None)[0]


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({"sources": "mixed"}, {"forget": 0.5, "refusals": 2.0, "retain": 3.0}),
        ({"sources": "forget"}, {"forget": 0.5, "refusals": 2.0}),
        ({"sources": "retain"}, {"retain": 3.0}),
        ({"sources": "mixed", "retain": 0.0}, {"forget": 0.5, "refusals": 2.0, "retain": 1.0}),
        ({"sources": "retain", "retain": 0.0}, {"retain": 1.0}),
        ({"sources": "forget", "retain": 0.0}, {"forget": 0.5, "refusals": 2.0}),
    ],
)
def test_the_curvature_is_that_of_the_sources_by_their_weights(
    losses: Losses, make: Make, settings: dict[str, Any], chosen: dict[str, float]
) -> None:
    """A loss that is ascended counts with the size of its weight; a retain loss that is not descended with 1."""
    drawn = {**losses.rows, "retain": rows_of(make(retain=3.0))}
    aim = make(**{"ascend": 0.5, "refusals": 2.0, "retain": 3.0, **settings})
    v = torch.randn(losses.parameters.size, generator=torch.Generator().manual_seed(0))
    found = estimate(aim, torch.ones(losses.parameters.size))
    expected = sum(weight * gauss_newton(losses.model, drawn[name]) @ v.double() for name, weight in chosen.items())
    assert torch.allclose(found.product(v).double() - found.floor * v.double(), expected, rtol=1e-3, atol=1e-3)  # type: ignore[arg-type]


@pytest.mark.parametrize("estimator", ["lbfgs", "fisher", "gauss_newton"])
@pytest.mark.parametrize("sources", ["mixed", "retain", "forget"])
def test_every_estimate_is_positive_and_leaves_the_parameters(
    losses: Losses, make: Make, estimator: Any, sources: Any
) -> None:
    before = losses.parameters.get()
    aim = make(estimator=estimator, sources=sources, min_pairs=1)
    gradient = descent(aim.terms(0))[1]
    found = estimate(aim, gradient)
    assert gradient @ found.inverse_product(gradient) > 0
    assert found.floor > 0
    assert all(isinstance(value, int | float) for value in found.report().values())
    assert torch.equal(losses.parameters.get(), before)


def test_pairs_are_probed_on_refusals_where_those_are_descended(make: Make) -> None:
    for settings, harmful in (({}, "curvature_refusals"), ({"ascend": 1.0, "refusals": 0.0}, "curvature_forget")):
        aim = make(estimator="lbfgs", min_pairs=1, **settings)
        _, probes = aim.estimate(0, aim.terms(0), torch.ones(1), lambda done: None)
        assert {probe.source for probe in probes} == {harmful, "retain_1", "retain_2"}


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_left_of_the_gradient_is_orthogonal_to_the_retain_gradients(
    losses: Losses, make: Make, number: int
) -> None:
    aim = make(project=number)
    gradient = descent(aim.terms(0))[1]
    left = aim.adjust(1, gradient)
    batches = losses.batches("retain_1", 1, 2, number, fewest=number)
    assert len(batches) == number
    span = torch.stack([batch.loss_and_gradient()[1] for batch in batches]).double()
    assert (span @ gradient.double()).abs().max() > 1e-2
    cosines = span @ left.double() / span.norm(dim=1) / left.double().norm()
    assert cosines.abs().max() < 1e-5
    shares = torch.linalg.lstsq(span.T, (gradient - left).double()[:, None]).solution
    assert torch.allclose(span.T @ shares, (gradient - left).double()[:, None], atol=1e-5)  # nothing else is taken


def test_without_projection_the_gradient_is_left_alone(make: Make) -> None:
    aim = make()
    gradient = descent(aim.terms(0))[1]
    assert torch.equal(aim.adjust(0, gradient), gradient)
