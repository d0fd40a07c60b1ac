"""The model that `safebasin lm-eval --model safebasin` runs."""

import logging
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ...errors import InputError
from ...tasks.sandbox.location import is_sandbox, model_folder, world_of
from ..engines.hf import StoredHFLM
from ..sandbox.build import build_world
from ..store.store import Store

__all__ = ["SafebasinLM"]


class SafebasinLM(StoredHFLM):
    """The transformers engine of a run, for lm-eval's command line: prompts are checked, and weights move for VISAGE.

    Args:
        pretrained: a hub id, a folder, or `sandbox`, `sandbox:3/unaligned`, …, which are built where they are missing.
        settings: as for HFLM, for example `peft`.

    Raises:
        InputError: the batch size is "auto".
    """

    def __init__(self, pretrained: str, **settings: Any) -> None:
        if str(settings.get("batch_size", 1)).startswith("auto"):
            raise InputError("--model safebasin needs a number as --batch_size; it makes it smaller where it must.")
        if is_sandbox(pretrained):
            build_world(world_of(pretrained))
            pretrained = str(model_folder(pretrained))
        super().__init__(pretrained=pretrained, **settings)
        self._folder = TemporaryDirectory(prefix="safebasin-")  # answers are kept as long as this model is
        store = Store(Path(self._folder.name) / "store.sqlite")
        self._bar = tqdm(desc="Requests answered", disable=self.rank != 0)
        self.answer_from(store, {}, self._show, logging.getLogger(__name__).warning)

    def _show(self, done: int, total: int) -> None:
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()
