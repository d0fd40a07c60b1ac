"""Digests of weights, adapters and source: what the keys of the store are made of."""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...restore.models.checkpoint import full_digest, kind_of
from ...source import source_digest

__all__ = ["checkpoint_digest", "code_digest", "digest_of", "file_digest", "folder_digest"]

_PACKAGE = Path(__file__).resolve().parents[2]


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (64 hex digits)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def _stat_digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; a file that has not changed is read once per process."""
    about = path.stat()
    return _stat_digest(path, about.st_size, about.st_mtime_ns)


def folder_digest(folder: Path, patterns: Iterable[str]) -> str:
    """Digest over the names and contents of the files in `folder` that match."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    return digest_of([[path.name, file_digest(path)] for path in files])


def checkpoint_digest(folder: Path) -> str:
    """Digest of a checkpoint: weights, and settings without the name of the base; of an adapter or a whole model.

    Raises:
        InputError: the folder holds neither.
    """
    if kind_of(folder) == "full":
        return full_digest(folder)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if not weights.exists() or not config.exists():
        raise InputError(
            f"{folder} is no PEFT adapter folder: adapter_config.json or adapter_model.safetensors is missing."
        )
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("base_model_name_or_path", None)
    for name, value in settings.items():  # PEFT keeps names of modules in sets, whose order changes from run to run
        if isinstance(value, list):
            settings[name] = sorted(value, key=str)
    return digest_of([file_digest(weights), settings])


@cache
def code_digest(*names: str) -> str:
    """Digest of what the package's own source does (Python, YAML, JSON), and of the versions of what it computes with.

    Args:
        names: folders or files of the package.
    """
    from importlib.metadata import version

    files = [
        path
        for name in names
        for suffix in ("*.py", "*.yaml", "*.json")
        for path in ([_PACKAGE / name] if (_PACKAGE / name).is_file() else sorted((_PACKAGE / name).rglob(suffix)))
    ]
    return digest_of(
        [source_digest(files), [[name, version(name)] for name in ("torch", "transformers", "peft", "lm_eval")]]
    )[:16]
