"""The model that `safebasin lm-eval --model safebasin` runs: lm-eval's HFLM, which knows the sandbox's models too."""

from typing import Any

from lm_eval.models.huggingface import HFLM

from ..tasks.sandbox.location import is_sandbox, model_folder
from .sandbox.build import build_world

__all__ = ["SafebasinLM"]


class SafebasinLM(HFLM):  # type: ignore[misc]  # lm-eval is untyped
    """HFLM on a hub id, a folder, or `sandbox`, `sandbox/unaligned`, …, which are built where they are missing.

    Args:
        pretrained: which model.
        settings: as for HFLM, for example `peft`.
    """

    def __init__(self, pretrained: str, **settings: Any) -> None:
        if is_sandbox(pretrained):
            build_world()
            pretrained = str(model_folder(pretrained))
        super().__init__(pretrained=pretrained, **settings)
