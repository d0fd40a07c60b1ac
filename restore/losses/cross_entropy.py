"""Cross-entropy of many tokens over a large vocabulary, without copies of the matrix of logits."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["token_losses"]

CHUNK = 1 << 22
"""Logits converted to float32 at a time: 16 MiB of them."""


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each token in nats, [n] float32, computed in float32 whatever the type of the logits.

    Between the passes nothing but the logits is kept, and the backward pass makes one matrix, the gradient, in their
    type. PyTorch's own keeps or makes up to four more, of float32.

    Args:
        logits: [n, V].
        targets: token ids, [n].
    """
    losses: Tensor = _TokenLosses.apply(logits, targets)  # type: ignore[no-untyped-call]
    return losses


def _parts(logits: Tensor) -> Iterator[slice]:
    step = max(1, CHUNK // logits.shape[1])
    return (slice(begin, begin + step) for begin in range(0, len(logits), step))


class _TokenLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        parts = [cross_entropy(logits[part].float(), targets[part], reduction="none") for part in _parts(logits)]
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None]:
        """The gradient of token i is (softmax(logits_i) - onehot(target_i)) times that of its loss."""
        logits, targets = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part in _parts(logits):
            shares = logits[part].softmax(1, torch.float32)
            shares[torch.arange(len(shares), device=shares.device), targets[part]] -= 1
            torch.mul(shares, outputs[0][part, None], out=gradient[part])
        return gradient, None
