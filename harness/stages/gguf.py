"""Models from .gguf files: dequantised once into the cache, as ordinary folders that everything else can read.

transformers reads GGUF itself (the extra `gguf` has the reader that it needs); the blocks that it would keep can be
neither saved nor fine-tuned, so the weights are written out as float32 safetensors.
"""

import json
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...tasks.sandbox.location import cache_folder
from ..store.digests import file_digest
from ..store.files import finished_folder

__all__ = ["dequantised", "dequantised_before", "gguf_in", "origin_of"]

ORIGIN = "gguf_origin.json"
MAGIC = b"GGUF"
TOLD = ("general.name", "general.architecture", "general.license", "general.file_type")
"""What a file says of itself that is worth keeping."""


def gguf_in(name: str) -> Path | None:
    """The .gguf file that a model's name stands for: the file itself, or the only one in a folder without config.json.

    Raises:
        InputError: the file is not there, or the folder holds several.
    """
    path = Path(name).expanduser()
    if name.lower().endswith(".gguf"):
        if not path.is_file():
            raise InputError(f"There is no file '{name}'. Give a .gguf file, a model folder or a hub id.")
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(f"The folder '{name}' holds {len(found)} .gguf files ({names}). Give one of them.")
    return found[0] if found else None


def dequantised(path: Path) -> Path:
    """The model of a .gguf file as a folder in the cache, under the file's digest; made at its first use.

    Raises:
        InputError: the file is no GGUF, is cut off, or holds what transformers cannot read; or the reader is missing.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InputError(f"{path} is no GGUF file: it does not begin with the bytes GGUF. Was it fetched whole?")
    if find_spec("gguf") is None:
        raise InputError(f"Reading {path} needs the package gguf. Run: pip install 'safebasin[gguf]'.")
    digest = file_digest(path)
    folder = _folder(digest)
    if not (folder / ORIGIN).is_file():
        with finished_folder(folder) as scratch:
            _write(path, digest, scratch)
    return folder


def dequantised_before(path: Path) -> Path | None:
    """The folder that `dequantised` made of a file, where it has; nothing is made."""
    folder = _folder(file_digest(path)) if path.is_file() else None
    return folder if folder and (folder / ORIGIN).is_file() else None


def _folder(digest: str) -> Path:
    return cache_folder() / "gguf" / digest[:16]


def origin_of(folder: Path) -> dict[str, Any] | None:
    """What is known of the .gguf file that a folder was made from; None of any other folder."""
    with suppress(FileNotFoundError):
        return dict(json.loads((folder / ORIGIN).read_text(encoding="utf-8")))
    return None


def _write(path: Path, digest: str, folder: Path) -> None:
    import torch
    from gguf import GGUFReader
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        fields = GGUFReader(str(path)).fields
        told = {key: fields[key].contents() for key in TOLD if key in fields}
        tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(path.parent),
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except Exception as error:  # of a damaged file, the readers raise whatever they stumble over
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason'}"
        raise InputError(
            f"{path} cannot be read as a causal language model ({reason}). Fetch it again, or give a model folder."
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    about = {"file": path.name, "sha256": digest, **told}
    (folder / ORIGIN).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
