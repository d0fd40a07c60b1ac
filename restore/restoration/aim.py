"""What a restoration descends and by which curvature, made of the losses of one model."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil

import torch
from torch import Tensor

from ...errors import InputError
from ..config.settings import RestoreConfig
from ..curvature.base import Curvature
from ..curvature.fisher import DiagonalFisher
from ..curvature.gauss_newton import DampedGaussNewton, GaussNewton
from ..curvature.pairs import ProbeRecord, Source, build_history
from ..losses.divergence import BaseDivergence, TunedDivergence
from ..losses.objective import TokenMeanLoss
from ..losses.of_model import Losses
from ..losses.terms import Term
from ..models.quantised import forward_epsilon
from ..models.reference import as_base
from .loop import Aim
from .stopping import Enough

__all__ = ["FORGET", "REFUSALS", "RETAIN", "make_aim"]

FORGET, REFUSALS, RETAIN = "forget_loss", "base_divergence", "retain_batch_loss"
"""Names of the terms in the trace."""
ROUNDING = 4
"""Gradient changes below this many machine epsilons (of the gradient's length) are mostly rounding.

Sandbox model, bfloat16 against fp32: the change's cosine fell to -0.85 at 0.011, and was above 0.98 from 0.035 on.
"""
LEAST_LEFT = 0.1
"""Share of epsilon that counts as left, at least, or the weight of the retain loss would have no end."""
Ingredients = tuple[Losses, RestoreConfig]
Progress = Callable[[int], None]


def make_aim(losses: Losses, config: RestoreConfig, enough: Enough = lambda: None) -> Aim:
    """The loss -ascend * L_forget + refusals * KL(base || model) + retain * L_retain, its curvature and its bound.

    Args:
        losses: of the tuned model as it stands.
        config: weights, estimator and bound.
        enough: how far the model is restored.

    Raises:
        InputError: the bound is a share of what fine-tuning gained on the retain check rows, and that is nothing.
    """
    fixed, epsilon = _fixed_terms(losses, config), _epsilon(losses, config)
    kind: type[TokenMeanLoss] = TokenMeanLoss
    if config.retain_target == "tuned":
        kind = TunedDivergence
        losses.parameters.remember()

    def terms(iteration: int, values: Mapping[str, float], left: float) -> Sequence[Term]:
        weight = _retain_weight(fixed, values, left, epsilon, config)
        if not weight:
            return fixed
        (batch,) = losses.batches("retain", iteration, config.retain_rows, 1, fewest=1, kind=kind)
        return [*fixed, Term(RETAIN, weight, batch)]

    maker = {"lbfgs": _pairs, "fisher": _fisher, "gauss_newton": _gauss_newton}[config.estimator]
    effort = config.pairs if config.estimator == "lbfgs" else 1
    adjust = partial(_without_retain_gradients, losses, config)
    return Aim(terms, partial(maker, (losses, config)), effort, fixed, enough, adjust, epsilon, losses.passes)


def _epsilon(losses: Losses, config: RestoreConfig) -> float | None:
    """How much the retain loss may rise, in nats per token (equation 2)."""
    if config.epsilon is not None or config.epsilon_share is None:
        return config.epsilon
    check = losses.on("retain_check")
    tuned = check.loss()
    with as_base(losses.model):
        base = check.loss()
    if not base > tuned:
        raise InputError(
            f"epsilon_share={config.epsilon_share:g} is a share of what fine-tuning gained on the retain check rows, "
            f"and that is nothing: their loss is {tuned:.4f} nats per token, the base model's {base:.4f}. Give rows of "
            "the task that was trained, or epsilon in nats per token."
        )
    return config.epsilon_share * (base - tuned)


def _fixed_terms(losses: Losses, config: RestoreConfig) -> list[Term]:
    sign = 1.0 if config.forget_target == "refusal" else -1.0
    terms = []
    if config.ascend:
        terms.append(Term(FORGET, sign * config.ascend, losses.on("forget")))
    if config.refusals:
        terms.append(Term(REFUSALS, config.refusals, losses.on("refusals", BaseDivergence)))
    return terms


def _retain_weight(
    fixed: Sequence[Term], values: Mapping[str, float], left: float, epsilon: float | None, config: RestoreConfig
) -> float:
    if config.retain is not None:
        return config.retain
    allowed = float(epsilon or 1.0)
    return sum(abs(term.weight) * values[term.name] for term in fixed) / max(left, LEAST_LEFT * allowed)


def _without_retain_gradients(losses: Losses, config: RestoreConfig, iteration: int, gradient: Tensor) -> Tensor:
    """The gradient less its projection on the span of `config.project` retain gradients."""
    if not config.project:
        return gradient
    batches = losses.batches("retain_1", iteration, config.batch_size, config.project, fewest=config.project)
    span = torch.stack([batch.loss_and_gradient()[1] for batch in batches], 1)
    basis = torch.linalg.qr(span.double())[0].to(gradient)
    along: Tensor = basis @ (basis.T @ gradient)
    return gradient - along


def _chosen(terms: Sequence[Term], config: RestoreConfig) -> list[tuple[float, TokenMeanLoss]]:
    """The losses whose curvature `config.sources` asks for; ascended ones count with the size of their weight."""
    wanted = {"mixed": (FORGET, REFUSALS, RETAIN), "retain": (RETAIN,), "forget": (FORGET, REFUSALS)}[config.sources]
    return [
        (abs(term.weight), term.objective)
        for term in terms
        if term.name in wanted and isinstance(term.objective, TokenMeanLoss)
    ]


def _with_retain(made_of: Ingredients, iteration: int, terms: Sequence[Term]) -> list[tuple[float, TokenMeanLoss]]:
    """The losses of the curvature; the retain loss has weight 1 in it where the update does not descend it."""
    losses, config = made_of
    if config.sources != "forget" and not any(term.name == RETAIN for term in terms):
        (batch,) = losses.batches("retain", iteration, config.retain_rows, 1, fewest=1)
        terms = [*terms, Term(RETAIN, 1.0, batch)]
    return _on_few_rows(_chosen(terms, config), iteration, losses, config)


def _on_few_rows(
    chosen: list[tuple[float, TokenMeanLoss]], iteration: int, losses: Losses, config: RestoreConfig
) -> list[tuple[float, TokenMeanLoss]]:
    """The same losses on `config.curvature_rows` rows in all, each by its share of them."""
    share = min(1.0, config.curvature_rows / sum(len(loss) for _, loss in chosen))
    return [
        (weight, loss.on_some(ceil(share * len(loss)), f"{losses.seed + iteration} curvature {number}"))
        for number, (weight, loss) in enumerate(chosen)
    ]


def _gauss_newton(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config = made_of
    matrix = GaussNewton(losses.parameters, _with_retain(made_of, iteration, terms))
    return DampedGaussNewton(matrix, gradient, config.damping, config.products, config.product_tolerance), ()


def _fisher(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config = made_of
    return DiagonalFisher(losses.parameters, _with_retain(made_of, iteration, terms), gradient, config.damping), ()


def _pairs(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config = made_of
    sources = _sources(made_of, iteration, next((term.weight for term in terms if term.name == RETAIN), 1.0))
    return build_history(losses.parameters, sources, config, lambda pairs, attempts: progress(pairs))


def _sources(made_of: Ingredients, iteration: int, retain: float) -> list[Source]:
    """The sets that probe curvature, in the order of their turns: harmful prompts, retain 1, retain 2."""
    losses, config = made_of
    noise = ROUNDING * forward_epsilon(losses.model)

    def source(name: str, weight: float, retain: bool, kind: type[TokenMeanLoss] = TokenMeanLoss) -> Source:
        batches = losses.batches(name, iteration, config.batch_size, config.max_attempts, kind=kind)
        return Source(name, batches, retain, noise, weight)

    if config.refusals:
        harmful = source("curvature_refusals", config.refusals, False, BaseDivergence)
    else:
        harmful = source("curvature_forget", config.ascend, False)
    return [harmful, *(source(name, retain, True) for name in ("retain_1", "retain_2"))]
