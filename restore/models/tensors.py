"""Which tensors of a model a perturbation moves, and what they are called whatever adapter is on the model."""

import re

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from ...errors import InputError

__all__ = ["is_norm", "tensor_name", "weights_of"]

_WRAPPERS = re.compile(r"^base_model\.model\.|\.base_layer(?=\.)|\.modules_to_save\.[^.]+(?=\.)")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def tensor_name(parameter: str) -> str:
    """The name of a parameter in the plain model: `base_model.model.h.q.base_layer.weight` is `h.q.weight`."""
    return _WRAPPERS.sub("", parameter)


def is_norm(name: str) -> bool:
    """Whether a tensor belongs to a layer norm, as the official code tells: by `norm` in its name.

    In architectures that call theirs otherwise (`ln_1` of GPT-2) norms move, there as here.
    """
    return "norm" in name.lower()


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the model itself, without norms and without an adapter's own, by `tensor_name`; tied ones once.

    Raises:
        InputError: one is quantised or offloaded.
    """
    adapters = [f"{name}." for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    found: dict[str, nn.Parameter] = {}
    for parameter, weight in model.named_parameters():
        if not is_norm(parameter) and not _is_adapters(parameter, adapters):
            _check(tensor_name(parameter), weight)
            found[tensor_name(parameter)] = weight
    return found


def _is_adapters(parameter: str, adapters: list[str]) -> bool:
    """Whether it is part of an adapter, or of a module that the adapter replaces whole."""
    inside = [parameter.removeprefix(name) for name in adapters if parameter.startswith(name)]
    return ".original_module." in parameter or any(not rest.startswith("base_layer.") for rest in inside)


def _check(name: str, weight: nn.Parameter) -> None:
    if weight.dtype in _DTYPES and weight.device.type != "meta":
        return
    what = "offloaded" if weight.device.type == "meta" else f"stored as {weight.dtype}"
    raise InputError(
        f"'{name}' is {what}, and only plain weights on a device can be perturbed. Load the model unquantised, in "
        "float32, bfloat16 or float16, on devices that hold all of it."
    )
