"""The trainable parameters of a model as one flat vector."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...errors import InputError

__all__ = ["FlatParameters", "Snapshot"]

Snapshot = list[Tensor]
"""A copy of every parameter, in order."""


class FlatParameters:
    """A view of named fp32 parameters as one vector theta of length n.

    Attributes:
        names: names of the parameters, in the order in which they fill the vector.
        size: n, the number of scalars.
        device: where vectors live (that of the first parameter).
    """

    def __init__(self, source: nn.Module | Sequence[tuple[str, nn.Parameter]]) -> None:
        """Takes the parameters of a module that require gradients, or the named parameters given.

        Raises:
            InputError: there is none, or one is not fp32 (curvature pairs are differences of gradients, which
                16-bit parameters would round away).
        """
        named = list(source.named_parameters()) if isinstance(source, nn.Module) else list(source)
        self._parameters = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        if not self._parameters:
            raise InputError(
                f"None of the {len(named)} parameters is trainable. Load the adapter with is_trainable=True."
            )
        coarse = [name for name, parameter in self._parameters if parameter.dtype != torch.float32]
        if coarse:
            raise InputError(
                f"{len(coarse)} trainable parameters are not float32, such as '{coarse[0]}'. Cast them first."
            )
        self.names = tuple(name for name, _ in self._parameters)
        self.size = sum(parameter.numel() for _, parameter in self._parameters)
        self.device = self._parameters[0][1].device

    @property
    def modules(self) -> list[tuple[int, int]]:
        """(begin, end) of the adapted modules in the vector: neighbours whose names agree up to `.lora_`."""
        found: list[tuple[int, int]] = []
        begin, previous = 0, ""
        for name, parameter in self._parameters:
            module, end = name.partition(".lora_")[0], begin + parameter.numel()
            found = [*found[:-1], (found[-1][0], end)] if module == previous else [*found, (begin, end)]
            begin, previous = end, module
        return found

    def _slices(self, vector: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        if vector.shape != (self.size,):
            raise ValueError(f"expected a vector of {self.size} entries, got shape {tuple(vector.shape)}")
        begin = 0
        for _, parameter in self._parameters:
            end = begin + parameter.numel()
            yield parameter, vector[begin:end].view_as(parameter)
            begin = end

    @torch.no_grad()
    def get(self) -> Tensor:
        """A copy of theta, [n] fp32."""
        return torch.cat([parameter.detach().reshape(-1).to(self.device) for _, parameter in self._parameters])

    @torch.no_grad()
    def set(self, vector: Tensor) -> None:
        """Sets theta to `vector` [n]."""
        for parameter, part in self._slices(vector):
            parameter.copy_(part)

    @torch.no_grad()
    def add(self, vector: Tensor, scale: float = 1.0) -> None:
        """Adds `scale * vector` [n] to theta."""
        for parameter, part in self._slices(vector):
            parameter.add_(part.to(parameter), alpha=scale)

    @torch.no_grad()
    def gradient(self) -> Tensor:
        """The accumulated gradient, [n] fp32; zeros where a parameter has none."""
        parts = (p.grad if p.grad is not None else torch.zeros_like(p) for _, p in self._parameters)
        return torch.cat([part.detach().reshape(-1).float().to(self.device) for part in parts])

    def zero_grad(self) -> None:
        """Drops the gradients of all parameters."""
        for _, parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def snapshot(self) -> Snapshot:
        """Copies every parameter, for `restore`."""
        return [parameter.detach().clone() for _, parameter in self._parameters]

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Puts the parameters back as they were at the snapshot, bit for bit."""
        for (_, parameter), saved in zip(self._parameters, snapshot, strict=True):
            parameter.copy_(saved)

    def remember(self) -> None:
        """Keeps the parameters as they stand, for `as_remembered`."""
        self._remembered = self.snapshot()

    @contextmanager
    def as_remembered(self) -> Iterator[None]:
        """Within the block the parameters are those of the last `remember`; then, bit for bit, what they were."""
        with self.preserved():
            self.restore(self._remembered)
            yield

    @contextmanager
    def preserved(self) -> Iterator[Snapshot]:
        """Puts the parameters back, bit for bit, when the block ends, by an exception too."""
        snapshot = self.snapshot()
        try:
            yield snapshot
        finally:
            self.restore(snapshot)
