"""Greedy coordinate gradient: a suffix that makes a model begin with a given answer, and searches without gradient.

Zou et al. 2023, arXiv 2307.15043, section 2.2, algorithm 1, for one request at a time. Other than there, a suffix is
kept until a better one is found, so that the loss never rises, and candidates that do not survive as text are drawn
anew: what is found can be typed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...errors import InputError
from .slot import Slot, Suffix
from .suffix_loss import SuffixLoss

__all__ = ["SEARCHES", "Attacked", "Search", "SuffixSettings", "attack"]

Search = Literal["gradient", "substitutions", "random"]
SEARCHES: dict[Search, str] = {
    "gradient": "greedy coordinate gradient: one token replaced, by one of the top k of the one-hot gradient",
    "substitutions": "a control: one token replaced, by any other",
    "random": "a control: all tokens drawn anew",
}
"""How the candidates of a step are drawn; everything else is the same."""
DRAWS = 16
"""Draws for each candidate that is wanted: some do not survive as text, others came already."""


@dataclass(frozen=True)
class SuffixSettings:
    """How hard an attacker tries. The paper's are length 20, steps 500, candidates 512 and top_k 256."""

    length: int = 20
    """L, tokens of the suffix."""
    steps: int = 100
    """T, at most: a search ends when greedy decoding begins with the target."""
    candidates: int = 128
    """B, suffixes evaluated exactly in each step."""
    top_k: int = 64
    """k, tokens for each place of the suffix that candidates are drawn from."""
    target_tokens: int | None = None
    """H, tokens of the target that are aimed at; None is all of them."""
    batch_size: int = 64
    """Suffixes of one forward pass; not for the result."""

    def __post_init__(self) -> None:
        """Refuses numbers below 1."""
        for name in ("length", "steps", "candidates", "top_k", "target_tokens", "batch_size"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise InputError(f"{name}={given}: a suffix attack needs at least 1. Give a larger number.")


@dataclass(frozen=True)
class Attacked:
    """What a search found."""

    suffix: Suffix
    losses: tuple[float, ...]
    """L of the suffix before the first step and after each; they never rise."""
    evaluated: int
    """Suffixes evaluated, the start included."""
    greedy: bool
    """Whether greedy decoding begins with the target."""

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return len(self.losses) - 1


def attack(
    loss: SuffixLoss, slot: Slot, tokens: Sequence[int], settings: SuffixSettings, search: Search, seed: str
) -> Attacked:
    """Searches a suffix under which the target is likely.

    Args:
        loss: of the model and the slot.
        slot: of the request.
        tokens: what a suffix may be made of (`suffix_tokens`).
        settings: how hard.
        search: one of `SEARCHES`.
        seed: decides every draw.
    """
    draw, suffix, best = random.Random(seed), slot.start, loss.of([slot.start])[0]
    losses, evaluated = [best.loss], 1
    ranked: list[list[int]] | None = None
    while len(losses) <= settings.steps and not best.greedy:
        if search == "gradient" and ranked is None:
            ranked = _ranked(loss.gradient(suffix, tokens), tokens, settings.top_k)
        candidates = _distinct(_maker(search, suffix, tokens, ranked, draw), suffix, slot, settings.candidates)
        scored = loss.of(candidates)
        evaluated += len(scored)
        for candidate, found in zip(candidates, scored, strict=True):
            if found.loss < best.loss:
                suffix, best, ranked = candidate, found, None
        losses.append(best.loss)
    return Attacked(suffix, tuple(losses), evaluated, best.greedy)


def _ranked(gradient: Tensor, tokens: Sequence[int], top_k: int) -> list[list[int]]:
    """For each of L places the k tokens whose linear effect lowers the loss most, [L, k] of a gradient [L, n]."""
    best = (-gradient).topk(min(top_k, gradient.shape[1]), dim=1).indices.tolist()
    return [[tokens[place] for place in row] for row in best]


def _maker(
    search: Search, suffix: Suffix, tokens: Sequence[int], ranked: Sequence[Sequence[int]] | None, draw: random.Random
) -> Callable[[], Suffix]:
    """Draws one candidate: a place and a token for it, both uniformly; or all tokens."""

    def replaced() -> Suffix:
        place = draw.randrange(len(suffix))
        token = draw.choice(tokens if ranked is None else ranked[place])
        return (*suffix[:place], token, *suffix[place + 1 :])

    return (lambda: tuple(draw.choices(tokens, k=len(suffix)))) if search == "random" else replaced


def _distinct(make: Callable[[], Suffix], suffix: Suffix, slot: Slot, count: int) -> list[Suffix]:
    """So many different candidates that survive as text, none of them the suffix itself; fewer if no more come."""
    seen, found = {suffix}, list[Suffix]()
    for _ in range(DRAWS * count):
        if len(found) == count:
            break
        candidate = make()
        if candidate not in seen:
            seen.add(candidate)
            found += [candidate] if slot.admits(candidate) else []
    return found
