from dataclasses import replace
from typing import Any

import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.curvature.pairs import Source, build_history
from safebasin.restore.models.parameters import FlatParameters

pytestmark = pytest.mark.filterwarnings("ignore:The curvature rests on few pairs")
CONFIG = RestoreConfig.from_preset("paper")


def bits(theta: FlatParameters) -> torch.Tensor:
    return theta.get().view(torch.int32)


@pytest.fixture
def sources(quadratic: Any) -> list[Source]:
    """Forget, retain 1 and retain 2, four batches each."""
    names = ("forget", "retain_1", "retain_2")
    return [Source(name, [quadratic(10 * i + j) for j in range(4)], retain=i > 0) for i, name in enumerate(names)]


def test_ten_pairs_are_taken_in_turns_with_a_rate_per_round(theta: FlatParameters, sources: list[Source]) -> None:
    history, records = build_history(theta, sources, CONFIG)
    assert len(history) == 10
    assert [r.source for r in records] == (["forget", "retain_1", "retain_2"] * 4)[:10]
    assert [r.learning_rate for r in records] == ([0.001] * 3 + [0.002] * 3 + [0.005] * 3 + [0.001])
    assert all(r.accepted and not r.reason for r in records)


@pytest.mark.parametrize("walk", [False, True])
def test_parameters_end_up_bit_identical(theta: FlatParameters, sources: list[Source], walk: bool) -> None:
    before = bits(theta).clone()
    build_history(theta, sources, replace(CONFIG, walk=walk))
    assert torch.equal(bits(theta), before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_parameters_end_up_bit_identical_after_an_exception(theta: FlatParameters, quadratic: Any, error: Any) -> None:
    before = bits(theta).clone()
    failing = quadratic(3, fail_at=1, error=error)
    with pytest.raises(error):
        build_history(theta, [Source("f", [quadratic(1), failing])], CONFIG)
    assert torch.equal(bits(theta), before)
    assert failing.calls == ["backward", "backward"]


def test_each_attempt_costs_two_passes_on_one_batch(theta: FlatParameters, sources: list[Source]) -> None:
    build_history(theta, sources, CONFIG)
    used = [batch.calls for source in sources for batch in source.batches if batch.calls]  # type: ignore[attr-defined]
    assert used == [["backward", "backward"]] * 10


def test_pairs_are_exact_on_a_quadratic(theta: FlatParameters, quadratic: Any) -> None:
    batch = quadratic(1)
    history, records = build_history(theta, [Source("r", [batch])], replace(CONFIG, powell=False, pairs=1))
    gradient = batch.loss_and_gradient()[1].double()
    s = -0.001 * gradient
    assert records[0].step_norm == pytest.approx(float(s.norm()), rel=1e-4)
    assert records[0].curvature == pytest.approx(float(s @ batch.a @ s / (s @ s)), rel=1e-3)
    assert torch.allclose(history.inverse_product((batch.a @ s).float()).double(), s, rtol=1e-2, atol=1e-5)


def test_steps_stay_within_the_radius(theta: FlatParameters, sources: list[Source]) -> None:
    config = replace(CONFIG, probe_rates=(10.0,), probe_radius=0.01, probe_radius_max=0.02)
    _, records = build_history(theta, sources, config)
    assert all(r.step_norm <= r.radius * (1 + 1e-5) for r in records)
    assert records[0].step_norm == pytest.approx(0.01, rel=1e-4)
    assert [r.radius for r in records[:4]] == pytest.approx([0.01, 0.015, 0.02, 0.02])


def test_a_step_that_misses_its_prediction_is_rejected_and_shrinks_the_radius(
    theta: FlatParameters, quadratic: Any
) -> None:
    steep = Source("r", [quadratic(i, top=1e4) for i in range(6)])
    config = replace(CONFIG, probe_rates=(10.0,), probe_radius=100.0, probe_radius_max=100.0, probe_radius_min=30.0)
    with pytest.raises(InputError, match=r"no curvature to follow: 0 of 10 .* 6 probe steps .*6 for ratio"):
        build_history(theta, [steep], config)


def test_the_radius_halves_down_to_its_floor(theta: FlatParameters, quadratic: Any) -> None:
    batches = [quadratic(i, top=1e4) for i in range(3)] + [quadratic(9, top=0.01)]
    config = replace(CONFIG, probe_rates=(1e4,), probe_radius=100.0, probe_radius_max=100.0, probe_radius_min=40.0)
    _, records = build_history(theta, [Source("r", [*batches, quadratic(10, top=1e-4)])], config)
    assert [r.radius for r in records[:4]] == [100.0, 50.0, 40.0, 40.0]
    assert [r.reason for r in records[:3]] == ["ratio"] * 3
    assert records[-1].accepted


def test_negative_curvature_is_rejected_before_there_is_a_pair_and_damped_after(
    theta: FlatParameters, quadratic: Any
) -> None:
    batches = [quadratic(1, sign=-1.0), quadratic(1), quadratic(2, sign=-1.0)]
    history, records = build_history(theta, [Source("r", batches)], CONFIG)
    assert [(r.accepted, r.damped, r.reason) for r in records] == [
        (False, False, "curvature"), (True, False, ""), (True, True, ""),
    ]  # fmt: skip
    assert records[0].curvature < 0
    assert (history.rejected, history.damped) == (1, 1)


def test_attempts_are_limited(theta: FlatParameters, quadratic: Any) -> None:
    many = Source("r", [quadratic(i, sign=-1.0 if i else 1.0) for i in range(9)])
    _, records = build_history(theta, [many], replace(CONFIG, powell=False, max_attempts=4))
    assert len(records) == 4


def test_the_prediction_uses_the_pairs(theta: FlatParameters, quadratic: Any) -> None:
    batch = quadratic(1)
    _, records = build_history(
        theta, [Source("r", [batch] * 3)], replace(CONFIG, probe_rates=(0.05,), probe_radius=9.0)
    )
    assert records[0].ratio < 0.9  # first order
    assert records[1].ratio == pytest.approx(1.0, abs=1e-3)  # the same step again, with its curvature known


def test_without_walk_all_probes_begin_at_theta(theta: FlatParameters, quadratic: Any) -> None:
    batch = Source("r", [quadratic(1)] * 3)
    still = [r.loss_before for r in build_history(theta, [batch], CONFIG)[1]]
    moving = [r.loss_before for r in build_history(theta, [batch], replace(CONFIG, walk=True))[1]]
    assert len(set(still)) == 1
    assert moving == sorted(moving, reverse=True)
    assert len(set(moving)) == 3


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [("retain", {"retain_1", "retain_2"}), ("forget", {"forget"}), ("mixed", {"forget", "retain_1", "retain_2"})],
)
def test_sources(theta: FlatParameters, sources: list[Source], chosen: Any, expected: set[str]) -> None:
    _, records = build_history(theta, sources, replace(CONFIG, sources=chosen))
    assert {r.source for r in records} == expected


def test_missing_sources_are_refused(theta: FlatParameters, sources: list[Source]) -> None:
    with pytest.raises(InputError, match=r"No data to probe curvature with \(sources=forget\)"):
        build_history(theta, sources[1:], replace(CONFIG, sources="forget"))


def test_a_change_below_the_noise_makes_later_steps_longer(theta: FlatParameters, quadratic: Any) -> None:
    source = Source("r", [quadratic(1)] * 3, noise=0.02)
    _, records = build_history(theta, [source], replace(CONFIG, probe_rates=(1e-4,)))
    assert [r.reason for r in records] == ["noise", "", ""]
    assert records[0].step_norm < 0.01
    assert records[1].step_norm == pytest.approx(records[1].radius, rel=1e-4)


@pytest.mark.filterwarnings("default")
def test_few_pairs_give_a_warning(theta: FlatParameters, quadratic: Any) -> None:
    with pytest.warns(UserWarning, match="5 of 10 curvature pairs after 5 probe steps"):
        build_history(theta, [Source("r", [quadratic(i) for i in range(5)])], CONFIG)


def test_progress_is_told(theta: FlatParameters, sources: list[Source]) -> None:
    told: list[tuple[int, int]] = []
    build_history(theta, sources, CONFIG, lambda *news: told.append(news))
    assert told == [(i, i) for i in range(1, 11)]
