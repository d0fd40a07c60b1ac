"""Where the trained sandbox world lies: in the user's cache, under the digest of the source that makes it."""

import hashlib
import os
from functools import cache
from pathlib import Path

from ...errors import InputError
from ...registry import suggest

__all__ = ["MODELS", "is_sandbox", "model_folder", "world_digest", "world_folder"]

MODELS = {"sandbox": "base", "sandbox/base": "base", "sandbox/unaligned": "unaligned", "sandbox/guard": "guard"}
"""Model preset -> folder of the world."""
_PACKAGE = Path(__file__).resolve().parents[2]
_SOURCES = (
    "tasks/sandbox/world.py",
    "harness/sandbox/models.py",
    "harness/sandbox/build.py",
    "harness/sandbox/guard.py",
)


@cache
def world_digest() -> str:
    """Digest of the source files that decide what the world is (12 hex digits)."""
    content = hashlib.sha256()
    for name in (*_SOURCES, "restore/training.py", "restore/encoding.py"):
        content.update((_PACKAGE / name).read_bytes())
    return content.hexdigest()[:12]


def cache_folder() -> Path:
    """The cache of safebasin: $SAFEBASIN_CACHE, else safebasin/ in the user's cache folder."""
    chosen = os.environ.get("SAFEBASIN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "safebasin"


def world_folder() -> Path:
    """The folder of the world made by the present source, built or not."""
    return cache_folder() / f"sandbox-{world_digest()}"


def is_sandbox(name: str) -> bool:
    """Whether a model name belongs to the sandbox."""
    return name == "sandbox" or name.startswith("sandbox/")


def model_folder(name: str) -> Path:
    """The folder of a sandbox model.

    Raises:
        InputError: no such sandbox model, or the world has not been built yet.
    """
    if name not in MODELS:
        raise InputError(f"Unknown sandbox model '{name}'. {suggest(name, MODELS)}")
    folder = world_folder() / MODELS[name]
    if not (folder / "config.json").exists():
        raise InputError(
            f"The sandbox model '{name}' is not built yet (looked in {folder}). Run `safebasin sandbox` once."
        )
    return folder
