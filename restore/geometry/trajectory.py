"""Paths of a first-order and of the curvature-aware method on one objective, and that objective in their plane.

Both paths take steps of the same length, the step size times |theta| of the tuned adapter (figures 8 and 9 give a
"learning rate"; equal lengths leave the direction as the only difference). The curvature-aware one is the restoration's
own loop, in its bound and up to its stop; the first-order one goes down the gradient of what that loop descends in the
same iteration, on the same rows, with no bound.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..losses.objective import NonFiniteError, Objective
from ..losses.of_model import Losses
from ..losses.terms import Term, descent
from ..models.parameters import FlatParameters
from ..models.vectors import dot
from ..restoration.aim import RETAIN, make_aim
from ..restoration.influence import loss_or_infinity
from ..restoration.loop import Aim, restore_parameters
from ..restoration.stopping import Enough, State
from .principal import PrincipalPlane, principal_plane

__all__ = ["CURVATURE_AWARE", "FIRST_ORDER", "Figure", "Ground", "Heights", "Walked", "figure", "ground_of"]

FIRST_ORDER, CURVATURE_AWARE = "first-order", "curvature-aware"
MARGIN = 0.15
"""Of the paths' extent, added to the grid on each side."""
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class Heights:
    """What the losses come to at some weights, in nats per token; infinite where one is not finite."""

    harmful: float
    """The weighted sum of the losses on harmful prompts that are descended; ascended ones count negative."""
    retain: float
    """On the retain check rows."""
    objective: float
    """harmful + weight * retain."""


@dataclass(frozen=True)
class Ground:
    """The objective that contours are drawn of: fixed rows and fixed weights, where a path's own change."""

    terms: Sequence[Term]
    """On harmful prompts."""
    retain: Objective
    weight: float
    """Of the retain loss: that of the first update; 1 where that does not descend it (figures 8 and 9)."""

    def heights(self) -> Heights:
        """At the parameters as they stand."""
        harmful = sum(term.weight * loss_or_infinity(term.objective) for term in self.terms)
        retain = loss_or_infinity(self.retain)
        whole = harmful + self.weight * retain
        return Heights(harmful, retain, whole if math.isfinite(whole) else math.inf)


@dataclass(frozen=True)
class Walked:
    """The weights that one method went through."""

    name: str
    points: Sequence[Tensor]
    """The tuned model first, each [n]."""
    ended: str
    heights: Sequence[Heights] = ()
    """At each point."""


@dataclass(frozen=True)
class Figure:
    """Both paths in their plane, and the objective on a grid there."""

    length: float
    """Of a step."""
    paths: Sequence[Walked]
    plane: PrincipalPlane
    a: Sequence[float]
    """Coordinates of the grid along the first component."""
    b: Sequence[float]
    grid: Sequence[Sequence[Heights]]
    """[a][b]."""


def ground_of(losses: Losses, aim: Aim) -> Ground:
    """The objective of a restoration as its first update has it.

    Args:
        losses: of the tuned model as it stands.
        aim: of the restoration.
    """
    values = {term.name: loss_or_infinity(term.objective) for term in aim.fixed}
    terms = aim.terms(0, values, math.inf if aim.epsilon is None else aim.epsilon)
    weight = next((term.weight for term in terms if term.name == RETAIN), 1.0)
    return Ground(aim.fixed, losses.on("retain_check"), weight)


def figure(
    losses: Losses,
    config: RestoreConfig,
    step_size: float,
    steps: int,
    points: int,
    enough: Enough = lambda: None,
    done: Done = lambda done, total: None,
) -> Figure:
    """Walks both paths and takes the objective on a grid; the parameters are as before, bit for bit.

    All visited weights are kept in memory on the CPU: (2 steps + 2) n numbers.

    Args:
        losses: of the tuned model, its adapter trainable.
        config: of the restoration.
        step_size: length of a step as a share of |theta|.
        steps: of each path, at most.
        points: of a side of the grid.
        enough: the restoration's stop.
        done: progress in evaluations.

    Raises:
        InputError: the restoration refuses its input, or the paths span no plane.
    """
    parameters = losses.parameters
    with parameters.preserved():
        start, aim = parameters.get(), make_aim(losses, config, _wordless(enough))
        length = step_size * dot(start, start) ** 0.5
        ground, total = ground_of(losses, aim), 4 * steps + 2 + points**2
        paths = []
        for number, walk in enumerate((_first_order, _curvature_aware)):
            before = number * (2 * steps + 1)

            def tick(step: int, before: int = before) -> None:
                done(before + step, total)

            found = walk(losses, aim, config, length, steps, tick)
            paths.append(replace(found, heights=_along(parameters, ground, found.points)))
            parameters.set(start)
        plane = principal_plane([point for path in paths for point in path.points])
        places = plane.coordinates([point for path in paths for point in path.points])
        a, b = (_coordinates(places[:, axis], points) for axis in range(2))
        grid = []
        for row, at in enumerate(a):
            grid.append([_at(parameters, ground, plane, at, each) for each in b])
            done(4 * steps + 2 + (row + 1) * points, total)
    return Figure(length, paths, plane, a, b, grid)


def _first_order(
    losses: Losses, aim: Aim, config: RestoreConfig, length: float, steps: int, done: Callable[[int], None]
) -> Walked:
    parameters, check = losses.parameters, losses.on("retain_check")
    limit = math.inf if aim.epsilon is None else check.loss() + aim.epsilon
    points = [parameters.get().cpu()]
    for iteration in range(steps):
        values: Mapping[str, float] = {term.name: loss_or_infinity(term.objective) for term in aim.fixed}
        try:
            gradient = descent(aim.terms(iteration, values, limit - loss_or_infinity(check)))[1]
        except NonFiniteError as error:
            return Walked(FIRST_ORDER, points, f"after {iteration} steps: {error}")
        gradient = aim.adjust(iteration, gradient)
        norm = dot(gradient, gradient) ** 0.5
        if not norm > 0:
            return Walked(FIRST_ORDER, points, "the gradient vanishes")
        parameters.add(gradient, -length / norm)
        points.append(parameters.get().cpu())
        done(iteration + 1)
    return Walked(FIRST_ORDER, points, "all steps")


def _curvature_aware(
    losses: Losses, aim: Aim, config: RestoreConfig, length: float, steps: int, done: Callable[[int], None]
) -> Walked:
    """The restoration's own loop: steps as long as given, or, where a Newton step is shorter, as that."""
    points = [losses.parameters.get().cpu()]

    def keep(iteration: int) -> None:
        points.append(losses.parameters.get().cpu())
        done(iteration)

    scale: Literal["newton", "euclid"] = "newton" if config.scale == "newton" else "euclid"
    own = replace(config, iterations=steps, max_update=length, scale=scale)
    try:
        trace = restore_parameters(losses.parameters, aim, losses.on("retain_check"), own, on_update=keep)
    except InputError as error:
        if len(points) == 1:
            raise
        return Walked(CURVATURE_AWARE, points, f"after {len(points) - 1} steps: {error}")
    return Walked(CURVATURE_AWARE, points, "all steps" if trace.ended == "iterations" else trace.ended)


def _wordless(enough: Enough) -> Enough:
    """The same stop; its words would make a warning of a path that has too few steps to get there."""

    def asked() -> State | None:
        state = enough()
        return state and replace(state, text="")

    return asked


def _along(parameters: FlatParameters, ground: Ground, points: Sequence[Tensor]) -> list[Heights]:
    found = []
    for point in points:
        parameters.set(point.to(parameters.device))
        found.append(ground.heights())
    return found


def _at(parameters: FlatParameters, ground: Ground, plane: PrincipalPlane, a: float, b: float) -> Heights:
    parameters.set(plane.at(a, b).to(parameters.device))
    return ground.heights()


def _coordinates(places: np.ndarray, points: int) -> list[float]:
    low, high = float(places.min()), float(places.max())
    room = MARGIN * (high - low)
    return [float(value) for value in np.linspace(low - room, high + room, points)]
