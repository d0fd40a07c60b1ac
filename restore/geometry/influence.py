"""Which examples drive a restoration's first update, and which pay for it.

    share_i = w_k g_i'H^-1 g / g'H^-1 g,   g = sum_k w_k sum_i g_i

g is the gradient that the update follows, w_k the weight of each loss in it, g_i the gradient of an example's part of
that loss (its tokens' loss by the tokens of all), H the curvature that the restoration uses, damped as it was when the
update was accepted. Shares sum to 1; a negative one pulls against the update.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..curvature.base import Curvature
from ..losses.encoding import Encoded
from ..losses.objective import TokenMeanLoss
from ..losses.of_model import Losses
from ..losses.terms import Term
from ..models.devices import input_device
from ..models.vectors import combine, dot
from ..restoration.aim import make_aim
from ..restoration.loop import restore_parameters
from .row_losses import RowLosses

__all__ = ["Cost", "FirstUpdate", "Share", "costs", "encoded_rows", "first_update", "shares"]

Done = Callable[[int, int], None]


@dataclass(frozen=True)
class FirstUpdate:
    """The first update of a restoration, as the restoration itself took it."""

    terms: Sequence[Term]
    """The losses that it descends."""
    gradient: Tensor
    """The gradient that it follows, [n]."""
    curvature: Curvature
    """The estimate, as tight as when the update was accepted."""
    step: Tensor
    """What the parameters moved by, [n]."""
    told: Mapping[str, Any]
    """Its row of the trace."""
    adjust: Callable[[int, Tensor], Tensor]
    """As `Aim.adjust`."""


@dataclass(frozen=True)
class Share:
    """What one example has to do with the update."""

    term: str
    """The loss that it is part of, by its name in the trace."""
    row: Encoded
    loss: float
    """Its mean loss, in nats per token."""
    share: float
    """Of g'H^-1 g."""
    gradient_norm: float
    """|w_k g_i|."""
    turn: float
    """By how many degrees the update turns where the example is left out of its loss, H as it is; NaN where it is the
    only one."""


@dataclass(frozen=True)
class Cost:
    """What the update costs one example, in nats per token."""

    place: int
    """In the set."""
    tokens: int
    before: float
    after: float
    first_order: float
    """Its gradient times the step."""

    @property
    def cost(self) -> float:
        """What its loss rose by."""
        return self.after - self.before

    def to_dict(self) -> dict[str, float]:
        """All of it by name."""
        return {**asdict(self), "cost": self.cost}


def first_update(losses: Losses, config: RestoreConfig) -> FirstUpdate:
    """Lets a restoration take its first update and takes it back; the parameters are as before, bit for bit.

    Args:
        losses: of the tuned model, its adapter trainable.
        config: of the restoration.

    Raises:
        InputError: the restoration refuses its input, or its first update breaks the bound or has no gain.
    """
    aim, seen = make_aim(losses, config), dict[str, Any]()

    def estimate(iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Callable[[int], None]) -> Any:
        found = aim.estimate(iteration, terms, gradient, progress)
        seen.update(terms=terms, gradient=gradient, curvature=found[0])
        return found

    parameters = losses.parameters
    with parameters.preserved():
        origin = parameters.get()
        trace = restore_parameters(
            parameters, replace(aim, estimate=estimate), losses.on("retain_check"), replace(config, iterations=1)
        )
        step = parameters.get() - origin
    told = trace.iterations[0]
    if not told["accepted"]:
        raise InputError(
            f"The restoration takes no first update that could be explained: it ended by '{trace.ended}'. Allow a "
            "higher retain loss (epsilon or epsilon_share), or give more rows."
        )
    return FirstUpdate(**seen, step=step, told=told, adjust=aim.adjust)


def encoded_rows(loss: TokenMeanLoss) -> list[Encoded]:
    """The rows that a loss is taken on, in the order in which it runs them."""
    found = []
    for batch in loss.batches:
        lengths = batch.attention_mask.sum(1).tolist()
        for ids, length, count in zip(batch.input_ids.tolist(), lengths, batch.counts, strict=True):
            found.append(Encoded(tuple(ids[:length]), length - count))
    return found


def shares(update: FirstUpdate, losses: Losses, done: Done = lambda done, total: None) -> list[Share]:
    """The share of each example of each loss that the update descends, the largest first.

    One forward and backward pass for each, and one product with H^-1; one gradient is in memory at a time.

    Args:
        update: of `first_update`, on the same losses.
        losses: with the parameters as they were.
        done: progress in examples.
    """
    total = sum(len(term.objective) for term in update.terms if isinstance(term.objective, TokenMeanLoss))
    found: list[Share] = []
    for term in update.terms:
        for share in _of_term(update, losses, term):
            found.append(share)
            done(len(found), total)
    return sorted(found, key=lambda each: -each.share)


def _of_term(update: FirstUpdate, losses: Losses, term: Term) -> Iterator[Share]:
    objective = term.objective
    if not isinstance(objective, TokenMeanLoss):
        raise InputError(f"The loss '{term.name}' is none of rows, so that no example has a share in it.")
    direction = update.curvature.inverse_product(update.gradient)
    gain, whole = dot(update.gradient, direction), objective.loss_and_gradient()[1]
    for row in encoded_rows(objective):
        own = losses.on_rows([row], term.name, type(objective))
        loss, gradient = own.loss_and_gradient()
        part = update.adjust(0, gradient * (term.weight * own.count / objective.count))
        left = objective.count - own.count
        turn = math.nan
        if left:
            # the mean of the others less the mean of all
            change = combine([whole, gradient], [term.weight * own.count / left, -term.weight * own.count / left])
            rest = update.curvature.inverse_product(update.gradient + update.adjust(0, change))
            turn = _angle(direction, rest)
        yield Share(term.name, row, loss, dot(part, direction) / gain, dot(part, part) ** 0.5, turn)


def _angle(one: Tensor, other: Tensor) -> float:
    """Between two vectors [n], in degrees, exact for small ones too (Kahan)."""
    a, b = one / dot(one, one) ** 0.5, other / dot(other, other) ** 0.5
    less, more = a - b, a + b
    return math.degrees(2 * math.atan2(dot(less, less) ** 0.5, dot(more, more) ** 0.5))


def costs(
    update: FirstUpdate, losses: Losses, rows: Sequence[Encoded], done: Done = lambda done, total: None
) -> list[Cost]:
    """What the update costs each of some rows, to first order and as measured, the dearest first.

    Args:
        update: of `first_update`, on the same losses.
        losses: with the parameters as they were, and as they are afterwards, bit for bit.
        rows: at least one; those of the retain check set, say.
        done: progress in rows.
    """
    measured = RowLosses(rows, losses.micro_batch_size, losses.pad, input_device(losses.model))
    before, slopes = measured.means(losses.model).tolist(), []
    for number, row in enumerate(rows, start=1):
        slopes.append(dot(losses.on_rows([row], "costs").loss_and_gradient()[1], update.step))
        done(number, len(rows))
    with losses.parameters.preserved(), torch.no_grad():
        losses.parameters.add(update.step)
        after = measured.means(losses.model).tolist()
    found = [
        Cost(place, row.targets, *values)
        for place, (row, *values) in enumerate(zip(rows, before, after, slopes, strict=True))
    ]
    return sorted(found, key=lambda each: -each.cost)
