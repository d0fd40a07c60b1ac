"""Which engine a run uses, told without importing torch or vLLM."""

from typing import Literal

from ... import vllm_setup
from ..config.model import RunConfig

__all__ = ["EngineName", "choose"]

EngineName = Literal["hf", "vllm"]


def choose(config: RunConfig) -> EngineName:
    """The engine of a run: `auto` is vLLM on a CUDA device where it is installed for one, else transformers."""
    if config.engine != "auto":
        return config.engine
    if vllm_setup.vllm_problem(config.device) or vllm_setup.vllm_device() != "cuda":
        return "hf"
    import torch

    return "vllm" if torch.cuda.is_available() else "hf"
