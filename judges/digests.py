"""Digests that tie a verdict to the weights that gave it."""

import hashlib
from pathlib import Path

from ..errors import InputError
from ..restore.models.files import files_digest

__all__ = ["folder_digest", "text_digest"]


def text_digest(text: str) -> str:
    """First 16 hex digits of sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def folder_digest(folder: Path) -> str:
    """Digest of a local model: of every file that decides what it answers, by name and content.

    Raises:
        InputError: the folder holds no weights.
    """
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise InputError(f"The folder '{folder}' holds no *.safetensors file; save the model with save_pretrained().")
    return files_digest(folder)[:16]
