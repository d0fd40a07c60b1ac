"""The model that `safebasin lm-eval --model safebasin` runs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import snapshot_download
from tqdm import tqdm  # type: ignore[import-untyped]
from transformers import AutoTokenizer

from ...errors import InputError
from ...restore.models.adapter_files import brings_tokenizer
from ...restore.models.advice import unloadable
from ...restore.models.chat import ends_of
from ...restore.models.files import check_files, local_folder
from ...restore.models.fitting import fitted, rows_of
from ...restore.models.loading import load_adapter
from ...restore.models.thinking import end_thinking_at
from ...restore.models.whole import load_whole
from ...tasks.sandbox.location import is_sandbox, model_folder
from ..engines.hf import StoredHFLM
from ..sandbox.build import build_model
from ..store.store import Store

__all__ = ["SafebasinLM"]


@dataclass(frozen=True)
class _Whole:
    """An auto class of transformers that loads a model whole or not at all."""

    source: Any

    def from_pretrained(self, name: str, **settings: Any) -> Any:
        return load_whole(self.source, name, "model", **settings)


@contextmanager
def _told(what: str, name: str, revision: str | None) -> Iterator[None]:
    """Whatever stops a load is told as an InputError."""
    try:
        yield
    except Exception as error:  # damaged files and absent packages make the libraries raise anything
        raise unloadable(what, name, revision, error) from error


def _adapter_folder(peft: str | None, revision: str | None) -> Path | None:
    if not peft or Path(peft).is_dir():
        return Path(peft) if peft else None
    with _told("adapter", peft, revision):
        return Path(snapshot_download(peft, revision=revision))


class SafebasinLM(StoredHFLM):
    """The transformers engine of a run, for lm-eval's command line: prompts are checked, and weights move for VISAGE.

    Args:
        pretrained: a hub id, a folder, or `sandbox`, `sandbox:3/unaligned`, …, which are built where they are missing.
        settings: as for HFLM, for example `peft`; `think_end_token` is needed only where the template does not tell.

    The tokenizer beside an adapter is taken where none is named.

    Raises:
        InputError: the batch size is "auto", or model, adapter or tokenizer do not pass `restore.models.gate`.
    """

    tokenizer: Any
    AUTO_MODEL_CLASS: Any
    _model: Any
    think_end_token: Any

    def __init__(self, pretrained: str, **settings: Any) -> None:
        if str(settings.get("batch_size", 1)).startswith("auto"):
            raise InputError("--model safebasin needs a number as --batch_size; it makes it smaller where it must.")
        if is_sandbox(pretrained):
            build_model(pretrained)
            pretrained = str(model_folder(pretrained))
        self._peft = _adapter_folder(settings.get("peft"), settings.get("revision"))
        if self._peft and brings_tokenizer(self._peft):
            settings.setdefault("tokenizer", str(self._peft))
        folder = local_folder(pretrained, settings.get("revision"))
        if folder:
            check_files(folder)
        if (wish := settings.pop("enable_thinking", None)) is not None:  # lm-eval would want an end named along with it
            settings["chat_template_args"] = {**(settings.get("chat_template_args") or {}), "enable_thinking": wish}
        super().__init__(pretrained=pretrained, **settings)
        end: Any = self.think_end_token
        self.think_end_token = None  # lm-eval would drop the thinking before it is stored
        end_thinking_at(str(self.tokenizer.convert_ids_to_tokens(end)) if isinstance(end, int) else end)
        self.table = rows_of(self.model)
        self.tokenizer = fitted(self.tokenizer, self.table)
        self.model.generation_config.eos_token_id = ends_of(self.model, self.tokenizer)
        self._folder = TemporaryDirectory(prefix="safebasin-")  # answers are kept as long as this model is
        store = Store(Path(self._folder.name) / "store.sqlite")
        self._bar = tqdm(desc="Requests answered", disable=self.rank != 0)
        self.answer_from(store, {}, self._show, logging.getLogger(__name__).warning)

    def _get_config(self, pretrained: str, **settings: Any) -> None:
        with _told("model", pretrained, settings.get("revision")):
            super()._get_config(pretrained, **settings)

    def _create_tokenizer(self, pretrained: str, tokenizer: Any, **settings: Any) -> None:
        with _told("tokenizer", str(tokenizer or pretrained), settings.get("revision")):
            super()._create_tokenizer(pretrained, tokenizer, **settings)
            if not self.tokenizer.chat_template and tokenizer:
                trusted = bool(settings.get("trust_remote_code"))
                own = AutoTokenizer.from_pretrained(
                    pretrained, revision=settings.get("revision"), trust_remote_code=trusted
                )
                self.tokenizer.chat_template = own.chat_template

    def _create_model(self, pretrained: str, **settings: Any) -> None:
        """HFLM's own, with weights that are looked at as they are loaded."""
        source, peft = self.AUTO_MODEL_CLASS, settings.pop("peft", None)
        self.AUTO_MODEL_CLASS = _Whole(source)
        try:
            with _told("model", pretrained, settings.get("revision")):
                super()._create_model(pretrained, **settings)
        finally:
            self.AUTO_MODEL_CLASS = source
        if peft and self._peft:
            self._model = load_adapter(self._model, self._peft)

    def _show(self, done: int, total: int) -> None:
        self._bar.total, self._bar.n = total, done
        self._bar.refresh()
