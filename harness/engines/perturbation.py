"""Weights moved along random directions, in place, and put back bit for bit (VISAGE, arXiv 2405.17374).

For each tensor theta of the merged model, with the seed k of a direction,

    theta(alpha) = theta + alpha * d * ||theta||_F / ||d||_F,    d ~ N(0, I) from a generator seeded by (k, its name).

Layer norms stay; biases and embeddings move as other tensors do; tied tensors move once, under their first name;
buffers are no weights. No direction is stored: it is drawn again at every point, so all models with the same tensor
names share it, whatever their weights, dtype or adapter. The sum is made in float32 from the kept origin and rounded
once, never accumulated. The generator is the device's own: a CPU and a GPU draw different directions.

What an engine that lets requests be perturbed must do (`harness.engines.hf` is one; it works on a torch module):

- have the class attribute `can_perturb = True`, by which tasks know that they are not answered by other weights;
- read the perturbation of a request (`tasks.perturbation`), and put its `weights.text` and the device that draws the
  directions into the key of the answer;
- answer the requests of one perturbation at a time, by weights that `displaced` has made of each tensor of the merged
  model under its Hugging Face name (`tensor_name`), except where `is_norm`; forget cached prefixes when weights change;
- leave the weights as they were, to the last bit, when it returns or raises.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ...restore.models.moving import MovedWeights
from ...restore.models.tensors import is_norm, tensor_name, weights_of
from ...tasks.perturbation import Perturbation

__all__ = ["Perturbation", "Perturber", "displaced", "is_norm", "tensor_name", "weights_of"]


class Perturber:
    """Moves one model from point to point, and back to where it was.

    Args:
        model: a causal LM, or a PEFT model of one, whose adapter is merged for as long as the weights are away.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._at: Perturbation | None = None
        self._moved: MovedWeights | None = None

    @torch.no_grad()
    def move(self, to: Perturbation | None) -> None:
        """Puts the merged weights at a point; None puts everything back as it was found.

        Raises:
            InputError: the weights are quantised or offloaded, or a copy of them cannot be kept.
        """
        if to is None:
            if self._moved:
                self._moved.put_back()
                self._moved = None
        elif to.weights != self._at:
            moved = self._moved = self._moved or MovedWeights(self._model)
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # one tensor's numbers are drawn by one thread
                list(
                    pool.map(
                        lambda name: displaced(name, moved.origin(name), to, moved.weights[name].data), moved.weights
                    )
                )
        self._at = to.weights if to else None


def displaced(name: str, origin: Tensor, to: Perturbation, out: Tensor) -> Tensor:
    """Writes one tensor of the model at a point of the sweep.

    Args:
        name: of the tensor, as `tensor_name` has it.
        origin: the tensor of the merged model, on any device.
        to: where to; at alpha 0 the result is the origin, bit for bit.
        out: where the result goes, of the origin's shape and dtype. What is there is lost; float32 needs no more room.

    Returns:
        `out`.
    """
    origin = origin.to(out.device)
    if to.alpha == 0:
        return out.copy_(origin)
    plain = out.dtype == torch.float32 and out.is_contiguous()
    moved = out if plain else torch.empty(out.shape, dtype=torch.float32, device=out.device)
    moved.normal_(generator=torch.Generator(out.device).manual_seed(_seed(to.direction, name)))
    lengths = [torch.linalg.vector_norm(each, dtype=torch.float32) for each in (origin, moved)]
    moved.mul_(to.alpha * lengths[0] / lengths[1]).add_(origin)
    return out if plain else out.copy_(moved)


def _seed(direction: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{direction}:{name}".encode()).digest()[:8]) >> 1
