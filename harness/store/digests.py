"""Digests of weights, adapters and source: what the keys of the store are made of."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from ...restore.models.checkpoint import kind_of
from ...restore.models.files import file_digest, files_digest
from ...source import source_digest

__all__ = ["checkpoint_digest", "code_digest", "digest_of", "file_digest", "files_digest", "weights_code"]

_PACKAGE = Path(__file__).resolve().parents[2]


def digest_of(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (64 hex digits)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checkpoint_digest(folder: Path) -> str:
    """Digest of a checkpoint: all files that decide what an adapter or a whole model answers, not the base's name.

    Raises:
        InputError: the folder holds neither.
    """
    kind_of(folder)
    return files_digest(folder)


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


def weights_code() -> str:
    """Digest of the source that decides what a method writes: all of `restore` but geometry and attacks, which look."""
    names = sorted(path.name for path in (_PACKAGE / "restore").iterdir())
    return code_digest(*(f"restore/{name}" for name in names if name not in ("attacks", "geometry")))
