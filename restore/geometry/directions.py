"""Two gradient-informed directions through weight space, shared by all models that are compared (equation 6).

    d_i = c · s_i ∘ ∇L(θ_base),  s_i ~ N(0, 1) per weight, from a generator seeded by (seed i, the tensor's name)

∘ is the product weight by weight. With scale `tensor`, c makes each tensor of d_i as long as that of θ_base, so that
α = 0.01 moves it by one percent of its length; with `raw`, c = 1, as equation 6 is written.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..losses.cross_entropy import token_losses
from ..losses.encoding import Encoded
from ..losses.label_logits import LabelModel, micro_batches
from ..losses.objective import evaluation_mode, power_below
from ..models.devices import input_device
from ..models.origin import TensorFile
from ..models.tensors import weights_of

__all__ = ["Scale", "direction_file", "direction_like", "gradient_of", "moved_weights"]

Scale = Literal["tensor", "raw"]
_MOVED = re.compile(r"attn|attention|mlp|feed_forward|ffn|moe|experts", re.IGNORECASE)


def moved_weights(model: Any) -> dict[str, nn.Parameter]:
    """The weights of attention and MLP layers of a model, by their plain names, norms aside.

    Raises:
        InputError: there are none, or one is quantised or offloaded.
    """
    found = {name: weight for name, weight in weights_of(model).items() if _MOVED.search(name)}
    if not found:
        raise InputError(
            f"{type(model).__name__} has no weights whose names tell of attention or MLP layers, which are moved."
        )
    return found


def gradient_of(model: Any, rows: Sequence[Encoded], pad: int, file: BinaryIO) -> Mapping[str, Tensor]:
    """The gradient of the token-mean loss of rows by `moved_weights`, in float32, in a file: name -> tensor.

    Rows go through the model one at a time, and each tensor's gradient leaves the device as soon as it is there, so
    that the model's memory does not double.

    Args:
        model: a plain causal LM; its parameters' `requires_grad` and gradients are as before afterwards.
        rows: encoded rows, at least one.
        pad: any token id.
        file: empty, open for reading and writing for as long as the gradient is wanted.
    """
    weights = moved_weights(model)
    gradient = TensorFile.written(file, ((name, torch.zeros(weight.shape)) for name, weight in weights.items()))
    tokens = sum(row.targets for row in rows)
    run, scale = LabelModel(model), power_below(tokens)
    with evaluation_mode(model), _gradients_to(gradient, weights, model, scale), torch.enable_grad():
        for batch in micro_batches(rows, 1, pad, input_device(model)):
            logits, targets, _ = run(batch)
            (token_losses(logits, targets).double().sum() / tokens * scale).backward()
    return gradient


@contextmanager
def _gradients_to(
    gradient: TensorFile, weights: Mapping[str, nn.Parameter], model: nn.Module, scale: float
) -> Iterator[None]:
    """Within the block, gradients of the weights, over `scale`, are added up in the file, and no others are taken."""
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    moved = {id(weight) for weight in weights.values()}

    def taken(name: str) -> Any:
        def add(parameter: Tensor) -> None:
            if parameter.grad is not None:
                gradient.write(name, gradient[name] + parameter.grad.float().cpu() / scale)
            parameter.grad = None

        return add

    hooks = []
    try:
        for parameter, _, _ in before:
            parameter.requires_grad_(id(parameter) in moved)
            parameter.grad = None
        hooks = [weight.register_post_accumulate_grad_hook(taken(name)) for name, weight in weights.items()]
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, required, own in before:
            parameter.requires_grad_(required)
            parameter.grad = own


def direction_file(
    file: BinaryIO, weights: Mapping[str, Tensor], gradient: Mapping[str, Tensor], seeds: tuple[int, int], scale: Scale
) -> TensorFile:
    """Writes both directions, tensor by tensor, in the weights' own type; `1:NAME` and `2:NAME` in what is returned.

    Raises:
        InputError: the gradient vanishes.
    """
    if not any(bool(gradient[name].any()) for name in weights):
        raise InputError("The gradient that the directions are made of is zero. Give other rows.")
    return TensorFile.written(file, _made(weights, gradient, seeds, scale))


def direction_like(weights: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    """What a file of directions for these weights holds, for `TensorFile`."""
    return [(f"{number}:{name}", weight.shape, weight.dtype) for number in (1, 2) for name, weight in weights.items()]


def _made(
    weights: Mapping[str, Tensor], gradient: Mapping[str, Tensor], seeds: tuple[int, int], scale: Scale
) -> Iterator[tuple[str, Tensor]]:
    for number, seed in enumerate(seeds, start=1):
        for name, weight in weights.items():
            key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]) >> 1
            made = torch.randn(weight.shape, generator=torch.Generator().manual_seed(key)).mul_(gradient[name])
            length = float(torch.linalg.vector_norm(made, dtype=torch.float64))
            if scale == "tensor" and length:
                made.mul_(float(torch.linalg.vector_norm(weight.detach(), dtype=torch.float64)) / length)
            yield f"{number}:{name}", made.to(weight.dtype)
