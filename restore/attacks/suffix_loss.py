"""The loss of a target behind a request with a suffix, and its gradient by the one-hot vectors of the suffix."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..losses.cross_entropy import token_losses
from ..losses.label_logits import LabelModel, MicroBatch
from ..losses.objective import evaluation_mode
from ..models.devices import input_device
from .slot import Slot, Suffix

__all__ = ["Scored", "SuffixLoss"]

CHUNK = 8192
"""Tokens of the vocabulary whose embeddings are multiplied at a time."""


class Scored(NamedTuple):
    """What a suffix comes to."""

    loss: float
    """L, in nats per token of the target."""
    greedy: bool
    """Whether greedy decoding begins with the target."""


class SuffixLoss:
    """L(s) = -1/H sum_h log p(x*_h | before, s, after, x*_<h) for suffixes s of one slot (Zou et al., section 2.1).

    The model is not changed: it is run in evaluation mode, and nothing but the embedded prompt gets a gradient.
    """

    def __init__(self, model: Any, slot: Slot, batch_size: int) -> None:
        """Takes a causal LM or PEFT model.

        Args:
            model: on any device.
            slot: of a request.
            batch_size: suffixes of one forward pass; decides memory and speed, not the result.
        """
        self._model, self._slot, self._size = model, slot, batch_size
        self._run = LabelModel(model)

    def of(self, suffixes: Sequence[Suffix]) -> list[Scored]:
        """L of each suffix, exactly: one forward pass each, in batches."""
        parts = [suffixes[begin : begin + self._size] for begin in range(0, len(suffixes), self._size)]
        with evaluation_mode(self._model), torch.no_grad():
            return [scored for part in parts for scored in self._scored(part)]

    def _scored(self, suffixes: Sequence[Suffix]) -> Iterator[Scored]:
        logits, targets, _ = self._run(self._batch(suffixes))
        shape = (len(suffixes), len(self._slot.target))
        losses = token_losses(logits, targets).double().view(shape).mean(1)
        greedy = (logits.argmax(-1) == targets).view(shape).all(1)
        return (Scored(*row) for row in zip(losses.tolist(), greedy.tolist(), strict=True))

    def gradient(self, suffix: Suffix, tokens: Sequence[int]) -> Tensor:
        """dL/de_iv, the gradient by the one-hot vector e_i of each token of a suffix (section 2.2).

        With the input embedding E(e_i) = sum_v e_iv E_v, linear in e_i,

            dL/de_iv = <dL/dE_i, E_v>.

        Args:
            suffix: L tokens.
            tokens: the n token ids v that are wanted.

        Returns:
            [L, n] float32, on the device of the embeddings.
        """
        table: nn.Module = self._model.get_input_embeddings()
        with evaluation_mode(self._model):
            with torch.enable_grad(), _embedded(table) as leaves:
                logits, targets, _ = self._run(self._batch([suffix]))
                (gradient,) = torch.autograd.grad(token_losses(logits, targets).mean(), leaves[0])
            begin = len(self._slot.before)
            with torch.no_grad():
                return torch.cat(list(_products(gradient[0, begin : begin + len(suffix)].float(), table, tokens)), 1)

    def _batch(self, suffixes: Sequence[Suffix]) -> MicroBatch:
        """Rows of one length, so nothing is padded; [rows, width] with H labels at the end of each."""
        ids = torch.tensor([self._slot.whole(suffix) for suffix in suffixes], device=input_device(self._model))
        rows, width = ids.shape
        wanted = len(self._slot.target)
        ends = torch.arange(width - wanted - 1, width - 1, device=ids.device)
        places = (torch.arange(rows, device=ids.device)[:, None] * width + ends).flatten()
        labels = ids[:, width - wanted :].flatten()
        return MicroBatch(ids, torch.ones_like(ids), places, labels, (wanted,) * rows)


@contextmanager
def _embedded(table: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block, what the input embeddings give is a leaf that gets a gradient; collects these leaves."""
    leaves: list[Tensor] = []

    def cut(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handle = table.register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()


def _products(gradient: Tensor, table: nn.Module, tokens: Sequence[int]) -> Iterator[Tensor]:
    """Products of rows [L, d] with the embeddings of tokens, through the module: it may scale them."""
    for begin in range(0, len(tokens), CHUNK):
        ids = torch.tensor([tokens[begin : begin + CHUNK]], device=gradient.device)
        yield gradient @ table(ids)[0].float().T
