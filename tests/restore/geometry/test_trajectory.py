"""Paths against steps by hand and the restoration's own loop, the grid against dense passes, weights bit for bit."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from safebasin.errors import InputError
from safebasin.restore.config.settings import RestoreConfig
from safebasin.restore.geometry.trajectory import CURVATURE_AWARE, FIRST_ORDER, Figure, figure, ground_of
from safebasin.restore.losses.of_model import Losses
from safebasin.restore.losses.terms import descent
from safebasin.restore.restoration.aim import make_aim
from safebasin.restore.restoration.loop import restore_parameters
from safebasin.restore.restoration.stopping import State
from torch import Tensor

from ..dense import cross_entropy, divergence, mean, small_losses

PAPER = RestoreConfig.from_preset("paper", pairs=4, batch_size=2, epsilon=0.3)
OURS = RestoreConfig(epsilon=0.5, retain_rows=4, damping=4.0)
SIZE, STEPS, POINTS = 0.02, 3, 4


@pytest.fixture
def losses() -> Losses:
    return small_losses()


def bits(losses: Losses) -> Tensor:
    return losses.parameters.get().view(torch.int32)


def drawn(losses: Losses, config: RestoreConfig, **options: Any) -> Figure:
    before = bits(losses)
    found = figure(losses, config, SIZE, STEPS, POINTS, **options)
    assert torch.equal(bits(losses), before), "bit-identical afterwards"
    return found


def named(found: Figure) -> dict[str, list[Tensor]]:
    return {path.name: list(path.points) for path in found.paths}


@pytest.mark.parametrize("config", [PAPER, OURS])
def test_first_order_steps_go_down_the_gradient_of_what_the_restoration_descends(
    losses: Losses, config: RestoreConfig
) -> None:
    found = drawn(losses, config)
    start, check, aim = losses.parameters.get(), losses.on("retain_check"), make_aim(losses, config)
    assert found.length == pytest.approx(SIZE * float(start.norm()), rel=1e-5)
    limit = check.loss() + float(config.epsilon or 0)
    points = named(found)[FIRST_ORDER]
    assert torch.equal(points[0], start)
    assert len(points) == STEPS + 1
    for iteration in range(STEPS):
        losses.parameters.set(points[iteration])
        values = {term.name: term.objective.loss() for term in aim.fixed}
        _, gradient = descent(aim.terms(iteration, values, limit - check.loss()))
        wanted = points[iteration] - found.length * gradient / gradient.norm()
        torch.testing.assert_close(points[iteration + 1], wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("config", "scale"), [(PAPER, "euclid"), (OURS, "newton")])
def test_the_curvature_aware_path_is_the_restoration_s_own(losses: Losses, config: RestoreConfig, scale: Any) -> None:
    found = drawn(losses, config)
    points = [losses.parameters.get()]
    own = replace(config, iterations=STEPS, max_update=found.length, scale=scale)
    restore_parameters(
        losses.parameters, make_aim(losses, config), losses.on("retain_check"), own,
        on_update=lambda number: points.append(losses.parameters.get()),
    )  # fmt: skip
    assert len(points) > 1
    ours = named(found)[CURVATURE_AWARE]
    assert len(ours) == len(points)
    assert all(torch.equal(one, other) for one, other in zip(ours, points, strict=True))
    steps = [float((after - before).norm()) for before, after in pairwise(ours)]
    assert max(steps) <= found.length * (1 + 1e-4)


@pytest.mark.parametrize("config", [PAPER, OURS])
def test_the_grid_is_the_objective_at_each_point_of_the_plane(losses: Losses, config: RestoreConfig) -> None:
    found = drawn(losses, config)
    aim = make_aim(losses, config)
    weight = ground_of(losses, aim).weight
    assert (weight == 1) == (config is PAPER), "the paper draws forget less retain; ours weighs by what is left"
    model, rows = losses.model, losses.rows
    assert [*map(len, found.grid)] == [POINTS] * POINTS
    origin, axes = found.plane.origin.double(), found.plane.axes.double()
    for i, a in enumerate(found.a):
        for j, b in enumerate(found.b):
            losses.parameters.set((origin + a * axes[0] + b * axes[1]).float())
            with torch.no_grad():
                retain = float(mean(cross_entropy, model, rows["retain_check"]))
                harmful = -float(mean(cross_entropy, model, rows["forget"])) if config is PAPER else float(
                    mean(divergence, model, rows["refusals"]))  # fmt: skip
            here = found.grid[i][j]
            assert here.harmful == pytest.approx(harmful, rel=1e-4, abs=1e-5)
            assert here.retain == pytest.approx(retain, rel=1e-4)
            assert here.objective == pytest.approx(harmful + weight * retain, rel=1e-4, abs=1e-4)
    flat = [each.objective for row in found.grid for each in row]
    assert np.ptp(flat) > 1e-3, "the ground is not flat"


def test_heights_are_told_at_the_weights_themselves_and_the_grid_holds_all_paths(losses: Losses) -> None:
    found = drawn(losses, OURS)
    for path in found.paths:
        for point, height in zip(path.points, path.heights, strict=True):
            losses.parameters.set(point)
            assert height.retain == pytest.approx(losses.on("retain_check").loss(), rel=1e-5)
        places = found.plane.coordinates(path.points)
        for axis, ends in enumerate((found.a, found.b)):
            assert ends[0] < places[:, axis].min() <= places[:, axis].max() < ends[-1]
    assert 0.5 < sum(found.plane.explained) <= 1 + 1e-9


def test_the_path_ends_where_the_model_is_restored_and_says_so(losses: Losses) -> None:
    asked: list[int] = []

    def enough() -> State:
        asked.append(1)
        return State(len(asked) > 2, "two of two are refused")

    first, ours = drawn(losses, OURS, enough=enough).paths
    assert (len(ours.points), ours.ended) == (3, "restored")
    assert (len(first.points), first.ended) == (STEPS + 1, "all steps")


def test_too_short_a_path_makes_no_warning(losses: Losses, recwarn: pytest.WarningsRecorder) -> None:
    drawn(losses, OURS, enough=lambda: State(False, "none of two is refused"))
    assert [str(each.message) for each in recwarn if "not fully restored" in str(each.message)] == []


def test_progress_ends_at_all(losses: Losses) -> None:
    told: list[tuple[int, int]] = []
    drawn(losses, PAPER, done=lambda *counts: told.append(counts))
    assert told[-1][0] == told[-1][1] == 4 * STEPS + 2 + POINTS**2
    assert told == sorted(told)


def test_what_is_refused_leaves_the_weights(losses: Losses) -> None:
    before = bits(losses)
    with pytest.raises(InputError):
        figure(losses, replace(PAPER, curv_tol=0.999999), SIZE, STEPS, POINTS)
    assert torch.equal(bits(losses), before)
