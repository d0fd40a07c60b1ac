"""Weights of a model that are moved in place for a while, and put back bit for bit."""

from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from .merge import check_untied
from .origin import kept
from .tensors import tensor_name, weights_of

__all__ = ["MovedWeights"]


class MovedWeights:
    """The weights of a model that someone is about to move; exact copies of them are kept until `put_back`.

    Attributes:
        weights: all that `weights_of` finds, by name.
    """

    @torch.no_grad()
    def __init__(self, model: Any) -> None:
        """Keeps the copies, and merges the adapter of a PEFT model for as long as the weights are away.

        Args:
            model: a causal LM, or a PEFT model of one.

        Raises:
            InputError: a weight is quantised or offloaded, a copy cannot be kept, or the adapter cannot be merged.
        """
        if isinstance(model, PeftModel):
            check_untied(model)
        self._model = model
        self.weights: dict[str, nn.Parameter] = weights_of(model)
        self._before: Mapping[str, Tensor] = kept(self.weights)
        self._merged: Mapping[str, Tensor] = {}
        if isinstance(model, PeftModel):
            try:
                model.merge_adapter()
                adapted = {tensor_name(name) for name, _ in model.named_parameters() if ".base_layer." in name}
                self._merged = kept({name: weight for name, weight in self.weights.items() if name in adapted})
            except BaseException:  # whatever it is, the model stays as it was
                self.put_back()
                raise

    def origin(self, name: str) -> Tensor:
        """A tensor of the merged model as it was, on the CPU; not to be written to."""
        return self._merged[name] if name in self._merged else self._before[name]

    @torch.no_grad()
    def put_back(self) -> None:
        """Makes everything what it was, to the last bit."""
        if isinstance(self._model, PeftModel):
            self._model.unmerge_adapter()  # for its flags: the numbers are overwritten
        for name, weight in self.weights.items():
            weight.data.copy_(self._before[name])
