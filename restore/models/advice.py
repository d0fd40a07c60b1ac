"""What to do about a model, tokenizer or adapter that cannot be loaded: one message for whatever libraries raise."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .files import local_folder

__all__ = ["mending_names", "unloadable"]

_PACKAGES = {
    "gptq": "gptqmodel", "awq": "gptqmodel", "bitsandbytes": "bitsandbytes", "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes", "aqlm": "aqlm", "quanto": "optimum-quanto", "hqq": "hqq", "eetq": "kernels",
    "compressed-tensors": "compressed-tensors", "torchao": "torchao", "vptq": "vptq", "auto-round": "auto-round",
}  # fmt: skip
"""Quantisation as config.json names it -> the package that loads it."""


def mending_names(missing: Sequence[str], left_over: Sequence[str]) -> str:
    """What mends names of weights that differ by what a wrapper puts into them; empty where that is not it."""
    for name in left_over:
        for wanted in missing:
            if name != wanted and (_within(wanted, name) or _within(name, wanted)):
                if ".base_layer." in name:
                    return "It was saved with an adapter on it: save what `merge_and_unload()` returns."
                return (
                    f"It was saved from inside a wrapper: rename '{name}' to '{wanted}' and so on (in Python, save "
                    "`model.module`, or for torch.compile `model._orig_mod`, with save_pretrained)."
                )
    return ""


def _within(short: str, long: str) -> bool:
    """Whether a name is another without one run of its parts."""
    a, b = short.split("."), long.split(".")
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return len(a) < len(b) and a[same:] == b[len(b) - len(a) + same :]


def unloadable(what: str, name: str, revision: str | None, error: Exception) -> InputError:
    """The one message for whatever stopped a load: what, which, why, and what mends it."""
    if isinstance(error, InputError):
        return error
    at = f" at revision '{revision}'" if revision else ""
    return InputError(f"Cannot load the {what} '{name}'{at}: {_reason(error)} {_advice(what, name, revision, error)}")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if "size mismatch" in line), lines[0] if lines else "")
    text = f"{type(error).__name__}: {text}" if isinstance(error, KeyError) or not text else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _advice(what: str, name: str, revision: str | None, error: Exception) -> str:
    folder, text = local_folder(name, revision), str(error)
    config = _config(folder)
    packing = config.get("quantization_config")
    method = str(packing.get("quant_method", "")) if isinstance(packing, dict) else ""
    if packing and ("GPU" in text or "CUDA" in text):
        return "Run on such a device, or give the model unquantised."
    if isinstance(error, ImportError) or (method and "install" in text):
        said = re.search(r"pip install (?:-U )?['\"]?([\w.-]+)", text)
        named = [said and said.group(1), _PACKAGES.get(method)]
        packages = " ".join(dict.fromkeys(filter(None, named))) or getattr(error, "name", None)
        return f"Run `pip install {packages}`." if packages else "Install the package that is named."
    if packing:
        return "Correct quantization_config in config.json, or give the model unquantised."
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "Its architecture is code in the model's own folder, which is not run here. Give a model whose "
            "architecture is part of transformers."
        )
    if "Unrecognized configuration class" in text:
        return f"Its model_type {config.get('model_type')!r} is no causal language model. Give one that is."
    if "model_type" in text or "model type" in text:
        return (
            f"config.json says model_type {config.get('model_type')!r}. Correct it, or run "
            "`pip install --upgrade transformers` if it is newer than the one installed."
        )
    if what == "adapter" and folder is not None:
        return (
            "Correct adapter_config.json, or run `pip install --upgrade peft` if the adapter is of a newer version "
            "than the one installed."
        )
    if "size mismatch" in text or "mismatch" in text:
        return "config.json and the weights are of different models. Give the config.json that belongs to the weights."
    if "gated" in text or "401" in text or "403" in text:
        return f"Ask for access at https://huggingface.co/{name} and log in with `hf auth login`; or give a folder."
    if "connect" in text.lower() or folder is None:
        return (
            "Give an existing folder, or a hub id that this machine can reach (offline, it must be in the hub cache)."
        )
    return f"Give a complete transformers folder; this one holds {_shown(folder)}."


def _config(folder: Path | None) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else {}
    except (OSError, ValueError):  # then that is what the message says
        return {}
    return found if isinstance(found, dict) else {}


def _shown(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
