"""The preset `paper_literal` against a plain reading of the paper's two algorithms."""

from dataclasses import replace
from typing import Any

import pytest
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.restoration.aim import make_aim
from safebasin.restore.restoration.loop import restore_parameters
from torch import Tensor

from ..dense import small_losses
from ..literal import Pairs, algorithm_1, algorithm_2, in_turns

CONFIG = RestoreConfig.from_preset("paper_literal", iterations=1, batch_size=3, probe_rates=(0.05, 2.0, 0.5))
"""Rates at which the small model shows all that may become of a step."""


@pytest.fixture
def losses() -> Losses:
    return small_losses(count=12)


def history_of(losses: Losses, config: RestoreConfig = CONFIG) -> tuple[Pairs, list[str]]:
    """Of the first iteration, on the batches that the restoration draws."""
    drawn = [
        losses.batches(name, 0, config.batch_size, config.max_attempts)
        for name in ("curvature_forget", "retain_1", "retain_2")
    ]
    with losses.parameters.preserved():
        turns = in_turns(drawn, config.probe_rates)
        return algorithm_1(losses.parameters, turns, 10, config.curv_tol, config.probe_radius)


def updated(losses: Losses, sign: float, shrink: float = CONFIG.shrink) -> Tensor:
    history, _ = history_of(losses)
    with losses.parameters.preserved():
        return algorithm_2(losses.parameters, history, losses.on("forget"), float(CONFIG.max_update or 0), shrink, sign)


def restored(losses: Losses, config: RestoreConfig = CONFIG) -> Any:
    return restore_parameters(losses.parameters, make_aim(losses, config), losses.on("retain_check"), config)


def test_one_iteration_is_what_the_algorithms_say(losses: Losses) -> None:
    """All but the sign of line 7 of Algorithm 2."""
    start, expected, (history, fates) = losses.parameters.get(), updated(losses, 1.0), history_of(losses)
    trace = restored(losses)
    assert set(fates) == {"", "ratio", "curvature"}
    assert [probe["reason"] for probe in trace.probes] == fates
    assert trace.iterations[0]["pairs"] == len(history) > 2
    moved, wanted = losses.parameters.get().double() - start, expected - start
    assert wanted.norm() > 0.05
    assert (moved - wanted).norm() < 1e-3 * wanted.norm()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"walk": False}, {}), ({"normalize": "joint"}, {}), ({"gamma": "median"}, {}), ({"max_update": 0.09}, {}),
        ({"shrink": 0.02}, {}), ({"curv_test": "relative"}, {"curv_tol": 0.05}),
        ({"powell": True}, {"curv_test": "relative"}),
    ],
)  # fmt: skip
def test_no_setting_of_the_preset_is_idle(losses: Losses, change: dict[str, Any], where: dict[str, Any]) -> None:
    """Each one, changed, leads somewhere else."""
    start, reached = losses.parameters.get(), []
    for changes in (where, {**where, **change}):
        losses.parameters.set(start)
        restored(losses, replace(CONFIG, **changes))
        reached.append(losses.parameters.get())
    assert (reached[0] - reached[1]).norm() > 1e-3


def test_the_literal_sign_would_make_harmful_answers_more_probable(losses: Losses) -> None:
    forget, start = losses.on("forget"), losses.parameters.get()
    found = {}
    for sign in (1.0, -1.0):
        losses.parameters.set(updated(losses, sign, shrink=0.0).float())
        found[sign] = forget.loss()
        losses.parameters.set(start)
    assert found[-1.0] < forget.loss() - 0.01
    assert found[1.0] > forget.loss() + 0.01


def test_nothing_bounds_the_retain_loss(losses: Losses) -> None:
    row = restored(losses).iterations[0]
    assert row["retain_limit"] is None
    assert (row["accepted"], row["halvings"]) == (True, 0)


def test_the_weight_of_the_shrinking_is_annealed_over_iterations(losses: Losses) -> None:
    trace = restored(losses, replace(CONFIG, iterations=3))
    assert [row["shrink"] for row in trace.iterations] == pytest.approx([0.01, 0.0095, 0.009025])
    assert [row["step_norm"] for row in trace.iterations] == pytest.approx([0.1] * 3)
