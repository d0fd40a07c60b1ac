"""Exact copies of weights, kept where they cost the model's device no memory."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import BinaryIO, Self

import numpy as np
import torch
from torch import Tensor

from ...errors import InputError

__all__ = ["TensorFile", "kept"]


def kept(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Copies the weights, bit for bit: in host memory, or, of a model that is in host memory itself, in a file.

    Returns:
        Name -> tensor on the CPU, of the same shape and dtype; not to be written to.

    Raises:
        InputError: the file cannot be written.
    """
    if any(weight.device.type == "cpu" for weight in weights.values()):
        return _in_temporary_file(weights)
    return {name: _on_host(weight) for name, weight in weights.items()}


def _on_host(weight: Tensor) -> Tensor:
    pinned = weight.device.type == "cuda"  # copied back two to four times as fast
    return torch.empty(weight.shape, dtype=weight.dtype, pin_memory=pinned).copy_(weight)


def _in_temporary_file(weights: Mapping[str, Tensor]) -> "TensorFile":
    """In a file without a name."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the copies are wanted
    try:
        return TensorFile.written(file, weights.items())
    except OSError as error:
        file.close()
        size = sum(weight.nbytes for weight in weights.values()) / 1e9
        raise InputError(
            f"A copy of the weights ({size:.1f} GB) cannot be kept in {tempfile.gettempdir()}: {error.strerror}. "
            "Set TMPDIR to a folder with more room."
        ) from error


class TensorFile(Mapping[str, Tensor]):
    """Tensors one after the other in a file; each is mapped into memory for as long as it is in use."""

    def __init__(self, file: BinaryIO, like: Iterable[tuple[str, torch.Size, torch.dtype]]) -> None:
        """Reads what `written` wrote.

        Args:
            file: open for as long as the tensors are wanted.
            like: name, shape and type of each tensor, in order.
        """
        self._file = file
        self._places: dict[str, tuple[int, torch.Size, torch.dtype]] = {}
        place = 0
        for name, shape, dtype in like:
            self._places[name] = (place, shape, dtype)
            place += shape.numel() * dtype.itemsize

    @classmethod
    def written(cls, file: BinaryIO, tensors: Iterable[tuple[str, Tensor]]) -> Self:
        """Writes tensors; only one is asked for at a time.

        Raises:
            OSError: there is no room.
        """
        like = []
        for name, tensor in tensors:
            file.write(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
            like.append((name, tensor.shape, tensor.dtype))
        file.flush()
        return cls(file, like)

    def __getitem__(self, name: str) -> Tensor:
        place, shape, dtype = self._places[name]
        size = shape.numel() * dtype.itemsize
        if not size:
            return torch.empty(shape, dtype=dtype)
        # "c": nothing written to the array would reach the file
        mapped = np.memmap(self._file, np.uint8, mode="c", offset=place, shape=(size,))
        return torch.from_numpy(mapped).view(dtype).view(shape)

    def write(self, name: str, tensor: Tensor) -> None:
        """Puts a tensor of the same shape in the place of one.

        Raises:
            OSError: the disk fails.
        """
        place, _, dtype = self._places[name]
        self._file.seek(place)
        self._file.write(tensor.to(dtype).contiguous().view(-1).view(torch.uint8).numpy().data)
        self._file.flush()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
