"""Weighted sums of LoRA adapters: exact ones of a higher rank, PEFT's "linear" of the same rank, and dense ones."""

from collections.abc import Mapping, Sequence
from math import copysign, sqrt

import torch
from torch import Generator, Tensor

from ...errors import InputError
from ..models.lora_files import Factors

__all__ = ["check_same_modules", "concatenated", "cross_terms", "padded", "thinned"]

Pair = tuple[Tensor, Tensor]
Part = tuple[float, Factors]
"""A weight, and what it weighs."""


def check_same_modules(one: Mapping[str, Factors], other: Mapping[str, Factors], what: str) -> None:
    """Refuses adapters of different modules or shapes; `what` names the second.

    Raises:
        InputError: they are.
    """
    strays = sorted(set(one) ^ set(other))
    if strays:
        raise InputError(
            f"The fine-tuned adapter and the {what} change different modules, such as '{strays[0]}'. Give the run the "
            "target_modules of the fine-tuned adapter."
        )
    for module, (a, b, _) in one.items():
        shapes = [(factors.b.shape[0], factors.a.shape[1]) for factors in (one[module], other[module])]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"The fine-tuned adapter is for a '{module}' of {(b.shape[0], a.shape[1])}, but in the base model "
                f"it is {shapes[1]}. Give the base model that the adapter was trained on."
            )


def concatenated(parts: Sequence[Part]) -> Pair:
    """A and B with B A = sum of weight * scale * b a, exactly: of the sum of the ranks, in float32."""
    a = torch.cat([factors.a.float() for _, factors in parts])
    b = torch.cat([weight * factors.scale * factors.b.double() for weight, factors in parts], dim=1)
    return a, b.float()


def cross_terms(parts: Sequence[Part]) -> Pair:
    """The A and B that PEFT's "linear" makes: sums of the factors, each times the root of its weight and scale.

    B A is then no weighted sum: it has the cross terms b1 a2 and b2 a1 too. In float32.

    Raises:
        InputError: the ranks differ.
    """
    if len({len(factors.a) for _, factors in parts}) > 1:
        ranks = [len(factors.a) for _, factors in parts]
        raise InputError(f"merge=peft_linear adds adapters of one rank, and these have {ranks}. Take merge=exact.")
    roots = [sqrt(abs(weight * factors.scale)) for weight, factors in parts]
    signed = [copysign(root, weight) for root, (weight, _) in zip(roots, parts, strict=True)]
    a = torch.stack([root * factors.a.double() for root, (_, factors) in zip(signed, parts, strict=True)]).sum(0)
    b = torch.stack([root * factors.b.double() for root, (_, factors) in zip(roots, parts, strict=True)]).sum(0)
    return a.float(), b.float()


def padded(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """All pairs at the largest rank among them; what is added is zero."""
    rank = max(len(a) for a, _ in pairs.values())
    return {
        module: (
            torch.cat([a, a.new_zeros(rank - len(a), a.shape[1])]),
            torch.cat([b, b.new_zeros(b.shape[0], rank - b.shape[1])], dim=1),
        )
        for module, (a, b) in pairs.items()
    }


def thinned(update: Tensor, drop: float, generator: Generator) -> Tensor:
    """DARE: each entry is set to zero with probability `drop`, the others are divided by 1 - `drop`."""
    if not drop:
        return update
    kept = torch.rand(update.shape, generator=generator, dtype=torch.float64) >= drop
    return update * kept / (1 - drop)
