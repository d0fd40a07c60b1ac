"""Base models of a run: presets, hub ids and folders, made ready and identified by the digest of their weights."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...restore.models.files import check_files, digests_of
from ...tasks.sandbox.location import KINDS, is_sandbox, model_folder, width_of
from ..store.digests import files_digest
from .gguf import dequantised, gguf_in, origin_of
from .presets import PRESETS, preset_folder

__all__ = ["ALIGNED", "ModelSource", "aligned_from", "described", "resolve"]

ALIGNED = "provenance.json"
"""What an aligned model was made from, in its folder."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_FETCHED = ("*.safetensors", "*.json", "*.model", "*.jinja", "*.txt", "*.tiktoken", "*.py")


@dataclass(frozen=True)
class ModelSource:
    """A base model that can be loaded."""

    name: str
    """As in the config."""
    location: str
    """Local folder."""
    revision: str | None
    digest: str
    """Digest of all files that decide what it answers."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digest of each of them."""
    unaligned: "ModelSource | None" = None
    """The same model before its alignment."""


def resolve(name: str, revision: str | None = None, unaligned: str | None = None) -> ModelSource:
    """Finds the model (and, if named, the unaligned one), fetching it from the hub where it is not at hand.

    Raises:
        InputError: it cannot be found, has no weights, or a file of it is damaged.
    """
    folder = _folder(name, revision)
    if not any(any(folder.glob(form)) for form in _WEIGHTS) or not (folder / "config.json").exists():
        raise InputError(
            f"The model '{name}' ({folder}) lacks config.json or weights (*.safetensors or pytorch_model*.bin). "
            "Give a transformers model folder."
        )
    check_files(folder)
    before = resolve(unaligned) if unaligned else None
    return ModelSource(name, str(folder), revision, files_digest(folder), digests_of(folder), before)


def described(models: Mapping[str, ModelSource]) -> dict[str, dict[str, Any]]:
    """What the manifest says of the models: digest, revision, and of a sandbox world the digests of all its models.

    A world is made anew on every machine, and differs between kinds of CPU: these digests tell which one it was.
    """
    return {
        name: {"digest": source.digest, "revision": source.revision}
        | ({"world": _world(Path(source.location).parent, width_of(name))} if is_sandbox(name) else {})
        | ({"gguf": origin} if (origin := origin_of(Path(source.location))) else {})
        | _alignment(source)
        for name, source in models.items()
    }


def _alignment(source: ModelSource) -> dict[str, Any]:
    about = aligned_from(Path(source.location))
    if about is None or source.unaligned is None:
        return {}
    before = source.unaligned
    return {"aligned": about, "unaligned": described({before.name: before})[before.name]}


def aligned_from(folder: Path) -> dict[str, Any] | None:
    """What an aligned model was made from and came to; None of any other folder."""
    with suppress(FileNotFoundError):
        about = dict(json.loads((folder / ALIGNED).read_text(encoding="utf-8")))
        return about if about.get("stage") == "align" else None
    return None


def _world(folder: Path, width: int | None) -> dict[str, str | None]:
    """Digest of each model of a world, and of those in another size; None for one that is not there."""
    sized = (f"unaligned-{width}", f"base-{width}") if width else ()
    parts = {part: folder / part for part in (*KINDS, *sized)}
    return {part: files_digest(own) if own.is_dir() else None for part, own in parts.items()}


def _folder(name: str, revision: str | None) -> Path:
    if is_sandbox(name):
        return model_folder(name)
    if name in PRESETS:
        return preset_folder(name)
    if (file := gguf_in(name)) is not None:
        return dequantised(file)
    if Path(name).is_dir():
        return Path(name)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(
            f"There is no model '{name}'. Give a folder, a .gguf file, a hub id (owner/name) or 'sandbox'."
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_FETCHED)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"The model '{name}' cannot be had from the hub: {str(error).splitlines()[0]} "
            f"If it is gated, ask for access at https://huggingface.co/{name}; offline, it must be in the hub cache."
        ) from error
