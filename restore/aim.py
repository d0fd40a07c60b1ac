"""What a restoration descends and by which curvature, made of the losses of one model."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .config import RestoreConfig
from .curvature import ProbeRecord, Source, build_history
from .divergence import BaseDivergence
from .estimators import Curvature
from .fisher import DiagonalFisher
from .gauss_newton import DampedGaussNewton, GaussNewton
from .losses import Losses
from .objective import TokenMeanLoss
from .quantised import forward_epsilon
from .restoration import Aim
from .terms import Term

__all__ = ["FORGET", "REFUSALS", "RETAIN", "make_aim"]

FORGET, REFUSALS, RETAIN = "forget_loss", "base_divergence", "retain_batch_loss"
"""Names of the terms in the trace."""
ROUNDING = 4
"""Gradient changes below this many machine epsilons (of the gradient's length) are mostly rounding.

Sandbox model, bfloat16 against fp32: the change's cosine fell to -0.85 at 0.011, and was above 0.98 from 0.035 on.
"""
Ingredients = tuple[Losses, RestoreConfig, float]
Progress = Callable[[int], None]


def make_aim(losses: Losses, config: RestoreConfig, enough: Callable[[], str] = lambda: "") -> Aim:
    """The loss -ascend * L_forget + refusals * KL(base || tuned) + retain * L_retain, and its curvature.

    Args:
        losses: of the tuned model as it stands; the weight of the retain loss is found there.
        config: weights and estimator.
        enough: when the model is restored.
    """
    fixed = _fixed_terms(losses, config)
    weight = _retain_weight(fixed, config)

    def terms(iteration: int) -> Sequence[Term]:
        if not weight:
            return fixed
        (batch,) = losses.batches("retain", iteration, config.retain_rows, 1, fewest=1)
        return [*fixed, Term(RETAIN, weight, batch)]

    maker = {"lbfgs": _pairs, "fisher": _fisher, "gauss_newton": _gauss_newton}[config.estimator]
    effort = config.pairs if config.estimator == "lbfgs" else 1
    adjust = partial(_without_retain_gradients, losses, config)
    return Aim(terms, partial(maker, (losses, config, weight)), effort, fixed, enough, adjust)


def _fixed_terms(losses: Losses, config: RestoreConfig) -> list[Term]:
    sign = 1.0 if config.forget_target == "refusal" else -1.0
    terms = []
    if config.ascend:
        terms.append(Term(FORGET, sign * config.ascend, losses.on("forget")))
    if config.refusals:
        terms.append(Term(REFUSALS, config.refusals, losses.on("refusals", BaseDivergence)))
    return terms


def _retain_weight(fixed: Sequence[Term], config: RestoreConfig) -> float:
    if config.retain is not None:
        return config.retain
    return sum(abs(term.weight) * term.objective.loss() for term in fixed) / float(config.epsilon or 1.0)


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
    losses, config, weight = made_of
    if not weight and config.sources != "forget":
        (batch,) = losses.batches("retain", iteration, config.retain_rows, 1, fewest=1)
        terms = [*terms, Term(RETAIN, 1.0, batch)]
    return _chosen(terms, config)


def _gauss_newton(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config, _ = made_of
    matrix = GaussNewton(losses.parameters, _with_retain(made_of, iteration, terms), config.keep_graphs)
    return DampedGaussNewton(matrix, gradient, config.damping, config.cg_iterations, config.cg_tolerance), ()


def _fisher(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config, _ = made_of
    return DiagonalFisher(losses.parameters, _with_retain(made_of, iteration, terms), gradient, config.damping), ()


def _pairs(
    made_of: Ingredients, iteration: int, terms: Sequence[Term], gradient: Tensor, progress: Progress
) -> tuple[Curvature, Sequence[ProbeRecord]]:
    losses, config, _ = made_of
    sources = _sources(made_of, iteration)
    return build_history(losses.parameters, sources, config, lambda pairs, attempts: progress(pairs))


def _sources(made_of: Ingredients, iteration: int) -> list[Source]:
    """The sets that probe curvature, in the order of their turns: harmful prompts, retain 1, retain 2."""
    losses, config, weight = made_of
    noise = ROUNDING * forward_epsilon(losses.model)

    def source(name: str, weight: float, retain: bool, kind: type[TokenMeanLoss] = TokenMeanLoss) -> Source:
        batches = losses.batches(name, iteration, config.batch_size, config.max_attempts, kind=kind)
        return Source(name, batches, retain, noise, weight)

    if config.refusals:
        harmful = source("curvature_refusals", config.refusals, False, BaseDivergence)
    else:
        harmful = source("curvature_forget", config.ascend, False)
    return [harmful, *(source(name, weight or 1.0, True) for name in ("retain_1", "retain_2"))]
