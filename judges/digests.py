"""Digests that tie a verdict to the weights that gave it."""

import hashlib
from functools import lru_cache
from pathlib import Path

from ..errors import InputError

__all__ = ["folder_digest", "text_digest"]


def text_digest(text: str) -> str:
    """First 16 hex digits of sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Digest of a local model: its safetensors files, `config.json` and `tokenizer.json`, by name and content.

    Files are hashed once per process as long as their size and time of change stay the same; the weights are read
    from disk, never loaded.

    Raises:
        InputError: the folder holds no safetensors file.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"The folder '{folder}' holds no *.safetensors file; save the model with save_pretrained().")
    others = [folder / name for name in ("config.json", "tokenizer.json") if (folder / name).is_file()]
    return text_digest("\n".join(f"{path.name} {_digest(path)}" for path in (*weights, *others)))


def _digest(path: Path) -> str:
    stat = path.stat()
    return _file_digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_digest(path: Path, size: int, mtime_ns: int) -> str:
    """sha256 of a file; size and time of change are there to miss the cache when the file was replaced."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
