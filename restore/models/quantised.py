"""What bitsandbytes' quantised layers need: weights that gradients pass through, and an honest rounding error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["forward_epsilon", "unpacked_weights"]

_PACKS = "support_avx512bf16_for_cpu"
INT8_EPSILON = 2.0**-7
"""A step of activations quantised to 8 bits, relative to the largest.

A random model of width 64: gradients a vanishing step apart differed by 0.015 of their length, twice this.
"""


@contextmanager
def unpacked_weights(model: Any) -> Iterator[None]:
    """Keeps 4-bit weights on the CPU in the layout that gradients pass through, for the block.

    On processors with AVX512-BF16, bitsandbytes repacks them in evaluation mode into one whose product has no
    backward pass: the gradients of all adapters below would be zero, without any error.

    Args:
        model: any model; without such layers nothing happens.
    """
    layers = [module for module in model.modules() if getattr(module, _PACKS, False)]
    try:
        for layer in layers:
            setattr(layer, _PACKS, False)
            layer.state_dict()  # unpacks a weight that an earlier forward pass packed
        yield
    finally:
        for layer in layers:
            setattr(layer, _PACKS, True)


def forward_epsilon(model: Any) -> float:
    """The relative rounding error of a forward pass: the machine epsilon of the coarsest type it computes in.

    Args:
        model: any model. Parameters of 8 bits or fewer are stored, not computed in; what quantised layers compute
            in is asked of them.
    """
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point() and p.element_size() > 1}
    dtypes |= {dtype for m in model.modules() if isinstance(dtype := getattr(m, "compute_dtype", None), torch.dtype)}
    coarsest = max((torch.finfo(dtype).eps for dtype in dtypes), default=torch.finfo(torch.float32).eps)
    int8 = any(type(module).__name__ == "Linear8bitLt" for module in model.modules())
    return max(coarsest, INT8_EPSILON) if int8 else coarsest
