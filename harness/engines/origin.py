"""Exact copies of weights, kept where they cost the model's device no memory."""

import tempfile
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError

__all__ = ["kept"]


def kept(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Copies the weights, bit for bit: in host memory, or, of a model that is in host memory itself, in a file.

    Returns:
        Name -> tensor on the CPU, of the same shape and dtype; not to be written to.

    Raises:
        InputError: the file cannot be written.
    """
    if any(weight.device.type == "cpu" for weight in weights.values()):
        return _File(weights)
    return {name: _on_host(weight) for name, weight in weights.items()}


def _on_host(weight: Tensor) -> Tensor:
    pinned = weight.device.type == "cuda"  # copied back two to four times as fast
    return torch.empty(weight.shape, dtype=weight.dtype, pin_memory=pinned).copy_(weight)


class _File(Mapping[str, Tensor]):
    """Tensors in a temporary file without a name; each is mapped into memory for as long as it is in use."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the copies are wanted
        self._places: dict[str, tuple[int, torch.Size, torch.dtype]] = {}
        try:
            for name, weight in weights.items():
                self._places[name] = (self._file.tell(), weight.shape, weight.dtype)
                self._file.write(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            self._file.flush()
        except OSError as error:
            self._file.close()
            size = sum(weight.nbytes for weight in weights.values()) / 1e9
            raise InputError(
                f"A copy of the weights ({size:.1f} GB) cannot be kept in {tempfile.gettempdir()}: {error.strerror}. "
                "Set TMPDIR to a folder with more room."
            ) from error

    def __getitem__(self, name: str) -> Tensor:
        place, shape, dtype = self._places[name]
        size = shape.numel() * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        # "c": nothing written to the array would reach the file
        mapped = np.memmap(self._file, np.uint8, mode="c", offset=place, shape=(size,))
        return torch.from_numpy(mapped).view(dtype).view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
