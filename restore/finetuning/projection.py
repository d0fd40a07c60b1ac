"""Projection of LoRA matrices onto alignment directions (Safe LoRA, arXiv 2405.16833), without the d x d matrix C.

V [d_out, d_in] is the aligned minus the unaligned weight, and C = V V' / ||V||_F. Only C B, for B [d_out, r], is ever
needed: C B = V (V' B) / ||V||_F, and the inner products of d_out x d_in updates are traces of r x r matrices.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, linalg

from ...errors import InputError
from ..config.projection import Select, Variant

__all__ = ["Difference", "Projected", "choose", "cosine", "project", "project_all"]

Difference = Callable[[str], Tensor]
"""Module name -> V [d_out, d_in] in float32."""
Pair = tuple[Tensor, Tensor]
"""A [r, d_in] and B [d_out, r] of one adapted module."""


@dataclass(frozen=True)
class Projected:
    """What the projection does to one adapted module."""

    module: str
    cosine: float | None
    """Between C B A and B A; None where one of them is zero, so that no direction is defined."""
    ratio: float
    """||C B|| / ||B||: how much of the update the projection would leave."""
    b: Tensor
    """C B, of the type of B."""

    def row(self, projected: bool) -> dict[str, Any]:
        """The report's row, in JSON values."""
        return {"module": self.module, "cosine": self.cosine, "ratio": self.ratio, "projected": projected}


def project(difference: Tensor, b: Tensor, variant: Variant, k: int) -> Tensor:
    """C B for one module.

    Args:
        difference: V [d_out, d_in].
        b: B [d_out, r].
        variant: "fro": C = V V' / ||V||_F, the official one; "spectral": V V' / ||V||_2^2, of norm 1 whatever the
            size of V; "topk": the projector U_k U_k' on the leading left singular vectors of V; "drop": 0.
        k: number of singular vectors of "topk" (fewer where V has a lower rank).
    """
    if variant == "drop" or not difference.any():
        return torch.zeros_like(b)
    if variant == "topk":
        # in float64: where singular values lie close, vectors of fp32 turn by more than rounding, on some CPUs
        u, sizes, _ = linalg.svd(difference.double(), full_matrices=False)
        rank = int((sizes > sizes[0] * max(difference.shape) * torch.finfo(difference.dtype).eps).sum())
        u = u[:, : min(k, rank)].to(b)
        return torch.mm(u, torch.mm(u.T, b))
    along = torch.mm(difference, torch.mm(difference.T, b))
    norm = linalg.matrix_norm(difference, ord=2) ** 2 if variant == "spectral" else linalg.matrix_norm(difference)
    return torch.div(along, norm)


def cosine(a: Tensor, b: Tensor, cb: Tensor) -> float | None:
    """The cosine between C B A and B A, from r x r Gram matrices in float64; None where one of them is zero.

    <C B A, B A> = tr((A A') (B' C B)), ||C B A||^2 = tr((A A') (C B)'(C B)).
    """
    a, b, cb = a.double(), b.double(), cb.double()
    rows = a @ a.T
    inner, before, after = ((rows * (left.T @ right)).sum() for left, right in ((b, cb), (b, b), (cb, cb)))
    if before <= 0 or after <= 0:
        return None
    return float(inner / (before.sqrt() * after.sqrt()))


def project_all(
    pairs: Mapping[str, Pair],
    difference: Difference,
    variant: Variant,
    k: int,
    device: str | torch.device = "cpu",
    done: Callable[[int], None] = lambda count: None,
) -> list[Projected]:
    """Projects every module in one pass, with one V in memory at a time. What `choose` picks is then put in place.

    Under "drop" the cosines are those of "fro": it leaves out the very updates that "fro" would project.

    Raises:
        InputError: a V is missing or of another shape, or all of them are zero.
    """
    made, any_difference = [], False
    for count, (module, (a, b)) in enumerate(pairs.items(), start=1):
        v = difference(module).to(device)
        if v.shape != (b.shape[0], a.shape[1]):
            raise InputError(
                f"The weight of '{module}' is {tuple(v.shape)}, but its adapter was made for "
                f"{(b.shape[0], a.shape[1])}. Give the base model that the adapter was trained on."
            )
        any_difference = any_difference or bool(v.any())
        wide = b.to(device, torch.float32)
        after = project(v, wide, variant, k)
        seen = project(v, wide, "fro", k) if variant == "drop" else after
        size = float(linalg.matrix_norm(wide))
        ratio = float(linalg.matrix_norm(after)) / size if size else 0.0
        made.append(Projected(module, cosine(a.to(device), wide, seen), ratio, after.to("cpu", b.dtype)))
        del v  # the next pair is read before the name would be bound anew
        done(count)
    if not any_difference:
        raise InputError(
            "The aligned and the unaligned model have the same weights in all adapted modules, so nothing is known of "
            "the alignment. Name the model before its alignment as `unaligned`."
        )
    return made


def choose(found: list[Projected], select: Select, threshold: float, number: int) -> set[str]:
    """Names of the modules to project: cosine at most `threshold`, or the `number` smallest cosines (ties by name).

    Modules without a cosine are left as they are.

    Raises:
        InputError: `number` is more than there are modules with a cosine.
    """
    ranked = sorted((each.cosine, each.module) for each in found if each.cosine is not None)
    if select == "threshold":
        return {module for value, module in ranked if value <= threshold}
    if number > len(ranked):
        raise InputError(f"number={number} is more than the {len(ranked)} adapted matrices. Lower it.")
    return {module for _, module in ranked[:number]}
