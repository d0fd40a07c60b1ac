"""Subspaces of what a linear module puts out at response tokens, and the adapter that starts inside one.

The equations of SaLoRA (arXiv 2501.01765). For a module with weight W [d_out, d_in] and inputs X [tokens, d_in], the
left singular vectors of W X' are the eigenvectors of the Gram matrix (W X')(W X')' [d_out, d_out]. It is summed batch
by batch, for all modules in one pass over the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, linalg, nn
from torch.nn import functional

from ...errors import InputError
from ..losses.encoding import IGNORED, Encoded, batches
from ..losses.objective import evaluation_mode

__all__ = ["initial_adapter", "remove", "response_directions", "top_directions"]

NEGLIGIBLE = 1e-6
"""Directions with less than this part of the strongest one's energy are rounding in a float32 Gram matrix."""


def top_directions(gram: Tensor, rank: int) -> Tensor:
    """The eigenvectors [d, at most rank] of the largest eigenvalues, orthonormal, in float32.

    Directions of negligible energy are left out: where the outputs span fewer than `rank` dimensions (a first layer
    sees no more inputs than there are different tokens), any further vectors would be arbitrary.
    """
    energies, vectors = linalg.eigh(gram.double())
    kept = int((energies[-rank:] > NEGLIGIBLE * energies[-1]).sum())
    directions: Tensor = vectors[:, len(energies) - kept :].flip(1).float()
    return directions.contiguous()


@torch.no_grad()
def response_directions(
    model: Any,
    modules: Mapping[str, nn.Linear],
    rows: Sequence[Encoded],
    rank: int,
    micro_batch_size: int,
    pad_id: int,
    done: Callable[[int], None] = lambda count: None,
) -> dict[str, Tensor]:
    """The leading directions of each module's outputs, without bias, at response tokens.

    Args:
        model: a PEFT model; runs the rows, in evaluation mode, as it is now.
        modules: linear modules of `model` by name.
        rows: encoded rows; tokens of the prompt and padding do not count.
        rank: number of directions.
        micro_batch_size: rows per forward pass.
        pad_id: any token id.
        done: called with the number of rows seen.

    Returns:
        Name -> U [d_out, at most rank], on the module's device.

    Raises:
        InputError: a module is no part of the transformer's body (the output head).
    """
    grams: dict[str, Tensor] = {}
    counted = torch.empty(0, dtype=torch.bool)

    def watch(name: str) -> Callable[..., None]:
        def add(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            out = functional.linear(inputs[0][counted], module.weight).float()
            grams[name] = grams[name].addmm_(out.T, out) if name in grams else out.T @ out

        return add

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    body = model.get_base_model().base_model  # without the head: its logits would take the most memory
    try:
        with evaluation_mode(model):
            seen = 0
            for batch in batches(rows, micro_batch_size, pad_id, next(model.parameters()).device):
                counted = batch.pop("labels") != IGNORED
                body(**batch, use_cache=False)
                seen += len(counted)
                done(seen)
    finally:
        for handle in handles:
            handle.remove()
    missed = sorted(set(modules) - set(grams))
    if missed:
        raise InputError(f"'{missed[0]}' lies outside the transformer body. Take it out of target_modules.")
    return {name: top_directions(grams.pop(name), rank) for name in modules}


def remove(directions: Tensor, outputs: Tensor) -> Tensor:
    """C_S y = y - U (U' y) for outputs [..., d_out] and U [d_out, k]; the d_out x d_out matrix is never formed."""
    directions = directions.to(outputs.dtype)
    return outputs - (outputs @ directions) @ directions.T


def initial_adapter(weight: Tensor, directions: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A_0 [rank, d_in] and B_0 [d_out, rank], in float32, with B_0 A_0 the task's part of the truncated SVD of W.

    W ~ U S V' of this rank; A_0 = S^(1/2) V' and B_0 = U_t U_t' U S^(1/2).

    Args:
        weight: W [d_out, d_in].
        directions: U_t [d_out, k] of the task's outputs.
        rank: the adapter's, at most min(d_out, d_in).
    """
    wide = weight.detach().float()
    _, vectors = linalg.eigh(wide.double() @ wide.double().T)
    left = vectors[:, -rank:].flip(1).float()
    rows = left.T @ wide  # S V'
    roots = linalg.vector_norm(rows, dim=1).sqrt()
    a = rows / roots.clamp_min(torch.finfo(roots.dtype).tiny)[:, None]
    return a, directions @ (directions.T @ (left * roots))
