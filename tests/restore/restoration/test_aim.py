"""What the settings make of the losses: terms, weights, curvature and projection, on the small model."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.divergence import BaseDivergence, TunedDivergence
from safebasin.restore.losses.encoding import Encoded
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.losses.terms import Term, descent
from safebasin.restore.restoration.aim import FORGET, REFUSALS, RETAIN, make_aim
from safebasin.restore.restoration.loop import Aim
from torch import Tensor

from ..dense import (
    cross_entropy,
    divergence,
    exact,
    flat_gradient,
    gauss_newton,
    mean,
    small_losses,
    small_model,
)

FEW = {"retain_rows": 3, "batch_size": 2, "epsilon": 0.1}
Make = Callable[..., Aim]


@pytest.fixture
def losses() -> Losses:
    return small_losses()


@pytest.fixture
def make(losses: Losses) -> Make:
    def call(**settings: Any) -> Aim:
        return make_aim(losses, RestoreConfig(**{**FEW, **settings}))

    return call


def terms_of(aim: Aim, iteration: int = 0, left: float = 0.1) -> Sequence[Term]:
    """As the restoration asks for them, at the parameters as they stand."""
    return aim.terms(iteration, {term.name: term.objective.loss() for term in aim.fixed}, left)


def weights(aim: Aim, left: float = 0.1) -> dict[str, float]:
    return {term.name: term.weight for term in terms_of(aim, 0, left)}


def rows_of(aim: Aim, iteration: int = 0) -> list[Encoded]:
    """Of the retain term."""
    found: list[Encoded] = terms_of(aim, iteration)[-1].objective._rows  # type: ignore[attr-defined]
    return found


def test_the_defaults_lower_the_divergence_and_the_retain_loss(losses: Losses, make: Make) -> None:
    aim = make()
    first = mean(divergence, exact(losses.model), losses.rows["refusals"]).item()
    assert weights(aim) == pytest.approx({REFUSALS: 1.0, RETAIN: first / 0.1}, rel=1e-4)
    assert [term.name for term in aim.fixed] == [REFUSALS]
    assert isinstance(aim.fixed[0].objective, BaseDivergence)


def test_a_retain_loss_on_the_tuned_model_s_predictions_asks_for_nothing_at_first(losses: Losses, make: Make) -> None:
    aim = make(retain_target="tuned")
    terms = terms_of(aim)
    assert isinstance(terms[-1].objective, TunedDivergence)
    _, gradient = descent(terms)
    alone = flat_gradient(mean(divergence, twin := exact(losses.model), losses.rows["refusals"]), twin)
    assert torch.allclose(gradient.double(), alone, rtol=1e-3, atol=1e-5)
    losses.parameters.add(torch.randn(losses.parameters.size), 0.1)
    values, pulled = descent(terms_of(aim, 1))
    assert values[RETAIN] > 0
    back = flat_gradient(mean(divergence, moved := exact(losses.model), losses.rows["refusals"]), moved)
    assert not torch.allclose(pulled.double(), back, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("epsilon", [0.05, 2.0])
@pytest.mark.parametrize(("share", "counted"), [(1.3, 1.3), (1.0, 1.0), (0.4, 0.4), (0.1, 0.1), (0.05, 0.1), (0, 0.1)])
def test_the_weight_of_the_retain_loss_is_the_others_over_what_is_left(
    losses: Losses, make: Make, epsilon: float, share: float, counted: float
) -> None:
    """Of epsilon a tenth counts as left, at least; more than all of it is left where the retain loss fell."""
    found = weights(make(ascend=0.5, refusals=2.0, epsilon=epsilon), share * epsilon)
    forget = mean(cross_entropy, exact(losses.model), losses.rows["forget"]).item()
    away = mean(divergence, exact(losses.model), losses.rows["refusals"]).item()
    expected = {FORGET: -0.5, REFUSALS: 2.0, RETAIN: (0.5 * forget + 2.0 * away) / (counted * epsilon)}
    assert found == pytest.approx(expected, rel=1e-4)


def test_the_weight_follows_the_values(make: Make) -> None:
    aim = make()
    found = {value: aim.terms(0, {REFUSALS: value}, 0.02)[-1].weight for value in (0.0, 1.0, 3.0)}
    assert found[1.0] == pytest.approx(50.0)
    assert found[3.0] == pytest.approx(150.0)
    assert found[0.0] == 1.0  # not descended; this is the weight in the curvature alone


def centred(losses: Losses, aim: Aim, limit: float) -> float:
    """The potential whose descent follows the centres: log(F) - log(what is left)."""
    fall = sum(abs(term.weight) * term.objective.loss() for term in aim.fixed)
    return math.log(fall) - math.log(limit - losses.on("retain_check").loss())


@pytest.mark.parametrize("used", [0.0, 0.5])
@pytest.mark.parametrize("settings", [{}, {"refusals": 0.7, "ascend": 0.3, "forget_target": "refusal"}])
def test_the_gradient_is_that_of_the_method_of_centres(losses: Losses, used: float, settings: dict[str, Any]) -> None:
    """F times the gradient of the potential, where the retain batch is the check set; by central differences."""
    losses.rows["retain"] = losses.rows["retain_check"]  # type: ignore[index]
    aim = make_aim(losses, RestoreConfig(retain_rows=99, epsilon=0.2, **settings))
    flat, left = losses.parameters, 0.2 * (1 - used)
    limit = losses.on("retain_check").loss() + left
    total = sum(abs(term.weight) * term.objective.loss() for term in aim.fixed)
    gradient = descent(terms_of(aim, 0, left))[1]
    for seed in range(3):
        along = torch.randn(flat.size, generator=torch.Generator().manual_seed(seed))
        along = along / along.norm() + gradient / gradient.norm()  # so that the slope is not small by chance
        sides = []
        for sign in (1, -1):
            with flat.preserved():
                flat.add(along, sign * 2e-3)
                sides.append(centred(losses, aim, limit))
        slope = total * (sides[0] - sides[1]) / 4e-3
        assert slope == pytest.approx(float(gradient @ along), rel=1e-2)


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_bound_is_a_share_of_what_fine_tuning_gained(losses: Losses, share: float) -> None:
    tuned = mean(cross_entropy, exact(losses.model), losses.rows["retain_check"]).item()
    bare = exact(losses.model)
    with bare.disable_adapter():
        base = mean(cross_entropy, bare, losses.rows["retain_check"]).item()
    assert base > tuned
    aim = make_aim(losses, RestoreConfig(epsilon_share=share))
    assert aim.epsilon == pytest.approx(share * (base - tuned), rel=1e-3)


def test_a_bound_in_nats_takes_precedence(losses: Losses) -> None:
    before = losses.passes.forward
    assert make_aim(losses, RestoreConfig(epsilon=0.3, epsilon_share=0.5)).epsilon == 0.3
    assert losses.passes.forward == before  # the losses that the share is of are not asked for
    assert make_aim(losses, RestoreConfig(epsilon_share=None, retain=1.0)).epsilon is None


def test_the_default_is_a_twentieth_and_the_paper_s_a_tenth_of_a_nat(losses: Losses) -> None:
    assert (RestoreConfig().epsilon, RestoreConfig().epsilon_share) == (None, 0.05)
    assert make_aim(losses, RestoreConfig.from_preset("paper")).epsilon == 0.1
    assert make_aim(losses, RestoreConfig.from_preset("paper_literal")).epsilon is None


@pytest.mark.parametrize("harm", [0.0, 0.1])
def test_where_fine_tuning_gained_nothing_a_share_is_refused(harm: float) -> None:
    """An adapter that does nothing, and one that raises the loss."""
    losses = small_losses(small_model(b_size=0.0))
    losses.parameters.add(losses.on("retain_check").loss_and_gradient()[1], harm)
    with pytest.raises(InputError) as caught:
        make_aim(losses, RestoreConfig(epsilon_share=0.25))
    assert "epsilon_share=0.25 is a share of what fine-tuning gained" in str(caught.value)
    assert "or epsilon in nats per token" in str(caught.value)
    assert f"{losses.on('retain_check').loss():.4f} nats per token" in str(caught.value)
    assert make_aim(losses, RestoreConfig(epsilon=0.1)).epsilon == 0.1


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
    values, gradient = descent(terms_of(aim))
    twin = exact(losses.model)
    parts = [
        mean(cross_entropy, twin, losses.rows["forget"]), mean(divergence, twin, losses.rows["refusals"]),
        mean(cross_entropy, twin, rows_of(aim)),
    ]  # fmt: skip
    expected = flat_gradient(-0.5 * parts[0] + 2.0 * parts[1] + 3.0 * parts[2], twin)
    assert torch.allclose(gradient.double(), expected, rtol=1e-3, atol=1e-4)
    assert list(values.values()) == pytest.approx([part.item() for part in parts], rel=1e-4)


def estimate(aim: Aim, gradient: Tensor) -> Any:
    return aim.estimate(0, terms_of(aim), gradient, lambda done: None)[0]


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
    aim = make(**{"ascend": 0.5, "refusals": 2.0, "retain": 3.0, "products": 40, "product_tolerance": 0.0, **settings})
    gradient = descent(terms_of(aim))[1]
    found = estimate(aim, gradient)
    whole = sum(weight * gauss_newton(losses.model, drawn[name]) for name, weight in chosen.items())
    along = float(gradient.double() @ whole @ gradient.double() / gradient.double().square().sum())  # type: ignore[operator]
    assert found.floor == pytest.approx(along, rel=0.03)  # linearising the logits costs up to 2% on so small a model
    damped = whole + found.floor * torch.eye(losses.parameters.size).double()
    solution = torch.linalg.solve(damped, gradient.double())
    assert (found.inverse_product(gradient).double() - solution).norm() < 0.03 * solution.norm()


@pytest.mark.parametrize(("rows", "drawn"), [(99, [6, 6, 3]), (15, [6, 6, 3]), (7, [3, 3, 2]), (1, [1, 1, 1])])
def test_the_curvature_is_taken_on_few_rows_each_loss_by_its_share(losses: Losses, rows: int, drawn: list[int]) -> None:
    aim = make_aim(losses, RestoreConfig(**FEW, ascend=0.5, retain=3.0, curvature_rows=rows, products=2))
    terms, before = terms_of(aim), losses.passes.gradient
    aim.estimate(0, terms, torch.ones(losses.parameters.size), lambda done: None)
    assert losses.passes.gradient - before == 2 * sum(drawn)


def test_the_rows_of_the_curvature_are_drawn_anew_with_each_estimate(losses: Losses) -> None:
    aim = make_aim(losses, RestoreConfig(**FEW, curvature_rows=3, products=1, retain=3.0))
    v = torch.ones(losses.parameters.size)
    estimates = [aim.estimate(iteration, terms_of(aim), v, lambda done: None)[0] for iteration in (0, 0, 1)]
    floors = [found.report()["damping"] for found in estimates]
    assert floors[0] == floors[1] != floors[2]


@pytest.mark.parametrize("estimator", ["lbfgs", "fisher", "gauss_newton"])
@pytest.mark.parametrize("sources", ["mixed", "retain", "forget"])
def test_every_estimate_is_positive_and_leaves_the_parameters(
    losses: Losses, make: Make, estimator: Any, sources: Any
) -> None:
    before = losses.parameters.get()
    aim = make(estimator=estimator, sources=sources, min_pairs=1)
    gradient = descent(terms_of(aim))[1]
    found = estimate(aim, gradient)
    assert gradient @ found.inverse_product(gradient) > 0
    assert found.tightness == 1.0
    assert found.bend(found.inverse_product(gradient)) > 0
    assert all(isinstance(value, int | float) for value in found.report().values())
    assert torch.equal(losses.parameters.get(), before)


def test_pairs_are_probed_on_refusals_where_those_are_descended(make: Make) -> None:
    for settings, harmful in (({}, "curvature_refusals"), ({"ascend": 1.0, "refusals": 0.0}, "curvature_forget")):
        aim = make(estimator="lbfgs", min_pairs=1, **settings)
        _, probes = aim.estimate(0, terms_of(aim), torch.ones(1), lambda done: None)
        assert {probe.source for probe in probes} == {harmful, "retain_1", "retain_2"}


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_left_of_the_gradient_is_orthogonal_to_the_retain_gradients(
    losses: Losses, make: Make, number: int
) -> None:
    aim = make(project=number)
    gradient = descent(terms_of(aim))[1]
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
    gradient = descent(terms_of(aim))[1]
    assert torch.equal(aim.adjust(0, gradient), gradient)
