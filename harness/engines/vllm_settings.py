"""How vLLM is started: as wide and as long as evaluation needs, with memory that it asks for by name."""

from typing import Any

import torch
from lm_eval.models.utils import resolve_max_length
from transformers import AutoConfig, GenerationConfig

from ...vllm_setup import start_settings, vllm_device
from ..config.model import RunConfig
from ..config.parallel import ParallelConfig

__all__ = ["BATCH", "dtype_of", "engine_settings", "repetition_penalty"]

BATCH = 256
"""Requests handed over at once: as many as vLLM works on at a time. They are stored together."""
MAX_LENGTH = 8192
"""Tokens of prompt and answer, at most: of the 128k positions that some models have, a cache could hold few."""


def dtype_of(base: str, config: RunConfig) -> str:
    """The dtype that the other engine would load the model in, by name: `auto` means other things to vLLM."""
    if config.dtype != "auto":
        return config.dtype
    if vllm_device() == "cpu":
        return "float32"
    return str(AutoConfig.from_pretrained(base, trust_remote_code=False).dtype or torch.float32).removeprefix("torch.")


def engine_settings(base: str, tokenizer: Any, dtype: str, parallel: ParallelConfig) -> dict[str, Any]:
    """Keyword arguments for lm-eval's VLLM, which hands those that it does not know to vLLM."""
    config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    length = min(resolve_max_length(config, tokenizer), MAX_LENGTH)
    spread = {"tensor_parallel_size": parallel.tensor, "pipeline_parallel_size": parallel.pipeline}
    divided = spread if parallel.tensor * parallel.pipeline > 1 else {}
    live = {"worker_extension_cls": f"{__package__}.vllm_worker.LiveWeights"}
    return start_settings(config, length, dtype) | live | divided


def repetition_penalty(model: str) -> dict[str, float]:
    """The one setting of a model's generation config that changes greedy answers and that vLLM would not read."""
    try:
        penalty = GenerationConfig.from_pretrained(model).repetition_penalty
    except OSError:  # a model need not have one
        return {}
    return {"repetition_penalty": float(penalty)} if penalty else {}
