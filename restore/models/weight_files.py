"""Single tensors of a saved model, read without loading the model."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.utils.hub import cached_file

from ...errors import InputError

__all__ = ["WeightFiles"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class WeightFiles:
    """The safetensors files of one model, in one piece or sharded by an index; one tensor is in memory at a time."""

    def __init__(self, model: str, revision: str | None = None) -> None:
        """Reads the list of tensors.

        Args:
            model: folder or hub id.
            revision: commit, branch or tag on the hub.

        Raises:
            InputError: there are no safetensors weights, or a file is missing or damaged.
        """
        self.model, self._revision = model, revision
        index = self._path(INDEX, needed=False)
        if index:
            shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._files = {name: str(self._path(file)) for name, file in shards.items()}
        else:
            single = str(self._path(SINGLE))
            self._files = dict.fromkeys(self._names(single), single)

    def _path(self, file: str, needed: bool = True) -> Path | None:
        try:
            found = cached_file(self.model, file, revision=self._revision, _raise_exceptions_for_missing_entries=needed)
        except OSError as error:
            raise InputError(
                f"Cannot read {file} of the model '{self.model}': {str(error).strip().splitlines()[0]} "
                "Give a folder with safetensors weights, or a hub id that this machine can reach."
            ) from error
        return Path(found) if found else None

    def _names(self, file: str) -> list[str]:
        try:
            with safe_open(file, framework="pt") as opened:
                return list(opened.keys())
        except SafetensorError as error:
            raise InputError(f"'{file}' is no safetensors file: {error}. Save the model again.") from error

    @property
    def names(self) -> list[str]:
        """The names of all tensors, in the order of the files."""
        return list(self._files)

    def read(self, name: str) -> Tensor:
        """The tensor saved under exactly this name, as float32 on the CPU.

        Raises:
            InputError: there is none.
        """
        if name not in self._files:
            raise InputError(
                f"The model '{self.model}' has no tensor '{name}'. "
                "Give a model of the same architecture, saved by save_pretrained from the same class."
            )
        with safe_open(self._files[name], framework="pt") as opened:
            return opened.get_tensor(name).to(torch.float32)  # type: ignore[no-any-return]  # untyped extension
