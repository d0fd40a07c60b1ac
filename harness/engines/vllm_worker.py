"""What runs inside vLLM's worker: the live weights become those of a checkpoint, in place, and the base's again.

vLLM imports this module in the worker before it loads the model, and mixes `LiveWeights` into the worker's class.
The methods take and return plain values, so they can be called in a process of their own.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...restore.models.checkpoint import kind_of
from ...restore.models.origin import kept
from ...tasks.perturbation import Perturbation
from .merging import changed_weights, merged_weights
from .perturbation import displaced, is_norm

__all__ = ["LiveWeights"]


def _keep_weights_plain() -> None:
    """Keeps vLLM's CPU backend from packing the weights of linear layers.

    It would compute from packed copies: a change of the weights themselves would change nothing, and say nothing.
    """
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    def plain(layer: Any, remove_weight: bool = False) -> None:
        layer.cpu_linear = nn.functional.linear

    if current_platform.is_cpu():
        utils.dispatch_cpu_unquantized_gemm = plain


_keep_weights_plain()


class LiveWeights:
    """Methods of the worker. Their names must not be those of vLLM's own."""

    vllm_config: Any
    get_model: Any
    _safebasin_origin: Mapping[str, Tensor]
    _safebasin_merged: dict[str, Tensor]
    """During a sweep: the tensors of the checkpoint that move, under their Hugging Face names, on the CPU."""

    @torch.inference_mode()
    def safebasin_begin(self) -> str:
        """Keeps a copy of the base's weights off the device (`origin.kept`) and takes their digest.

        Returns:
            The digest, or "" where the weights are quantised or packed, so that nothing can be written into them.
        """
        weights = self._safebasin_weights()
        if self.vllm_config.quant_config is not None or not all(weight.numel() for weight in weights.values()):
            return ""
        self._safebasin_merged = {}
        self._safebasin_origin = kept(weights)
        return self.safebasin_digest()

    def safebasin_put(self, base: str, checkpoint: str) -> str:
        """Makes the base's weights those of a checkpoint.

        Args:
            base: folder of the base model.
            checkpoint: folder of an adapter or a whole model.

        Returns:
            Nothing, or why it cannot be done (an error would lose its type on its way out of another process).
        """
        try:
            loaded = self._safebasin_load(changed_weights(base, checkpoint))
        except InputError as error:
            return str(error)
        except (AssertionError, KeyError, RuntimeError, ValueError) as error:  # vLLM's for other shapes or names
            return _unfit(checkpoint, str(error))
        missing = set(self._safebasin_origin) - loaded
        if missing and kind_of(checkpoint) == "full":
            return _unfit(checkpoint, f"it lacks {len(missing)} of vLLM's weights, such as '{min(missing)}'")
        return ""

    def safebasin_move(self, base: str, checkpoint: str, to: str) -> None:
        """Puts the weights of a checkpoint that is being served at a point of a sweep.

        Args:
            base: folder of the base model.
            checkpoint: folder of the adapter or whole model, or "" for the base.
            to: the perturbation, as `Perturbation.text` writes it.
        """
        model = self.vllm_config.model_config
        if not self._safebasin_merged:
            found = merged_weights(base, checkpoint or None)
            self._safebasin_merged = {name: weight.to(model.dtype) for name, weight in found if not is_norm(name)}
        point, device = Perturbation.parse(to), next(self.get_model().parameters()).device
        self._safebasin_load(
            (name, displaced(name, weight, point, torch.empty_like(weight, device=device)))
            for name, weight in self._safebasin_merged.items()
        )

    @torch.inference_mode()
    def safebasin_restore(self) -> str:
        """Puts the base's weights back, bit for bit, and returns the digest of what is there then."""
        self._safebasin_merged.clear()
        for name, weight in self._safebasin_weights().items():
            weight.copy_(self._safebasin_origin[name])  # the same storage: captured CUDA graphs stay valid
        return self.safebasin_digest()

    def safebasin_digest(self) -> str:
        """SHA-256 over the names and bits of the live weights (64 hex digits)."""
        found = hashlib.sha256()
        for name, weight in sorted(self._safebasin_weights().items()):
            found.update(name.encode())
            found.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return found.hexdigest()

    @torch.inference_mode()
    def _safebasin_load(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        """Writes tensors with Hugging Face names into vLLM's own, fused ones; returns the names of those."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self.vllm_config):
            return set(self.get_model().load_weights(weights) or ())

    def _safebasin_weights(self) -> dict[str, nn.Parameter]:
        return dict(self.get_model().named_parameters())


def _unfit(checkpoint: str, why: str) -> str:
    return f"The checkpoint '{checkpoint}' does not fit the model that vLLM serves: {why}. Use engine: hf."
