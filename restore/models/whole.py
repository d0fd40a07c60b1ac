"""Loading weights whole: each is there, none is left over, all are finite; or one message says what is wrong."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .files import check_files, local_folder

__all__ = ["HARMLESS", "check_finite", "load_whole", "unloadable"]

HARMLESS = re.compile(
    r"rotary_emb\.inv_freq$|rotary_pos_emb\.inv_freq$|(^|\.)position_ids$"  # computed, and saved by old versions
    r"|\.(attn|attention)\.(masked_)?bias$"  # causal masks of GPT-2 and GPT-NeoX, likewise
)
"""Names of saved tensors that no model of today reads. Tied heads are known to transformers, which misses none."""
_LISTED = (
    "_ids",
    "_config",
    "_strings",
    "_bias",
    "suppress_tokens",
    "_decay_length_penalty",
    "constraints",
    "dola_layers",
)
"""How the generation settings end that may be lists or mappings."""
_PACKAGES = {
    "gptq": "gptqmodel", "awq": "gptqmodel", "bitsandbytes": "bitsandbytes", "bitsandbytes_4bit": "bitsandbytes",
    "bitsandbytes_8bit": "bitsandbytes", "aqlm": "aqlm", "quanto": "optimum-quanto", "hqq": "hqq", "eetq": "eetq",
    "compressed-tensors": "compressed-tensors", "torchao": "torchao", "vptq": "vptq", "auto-round": "auto-round",
}  # fmt: skip
"""Quantisation as config.json names it -> the package that loads it."""


def load_whole(source: Any, name: str, what: str, **settings: Any) -> Any:
    """Calls `source.from_pretrained` and checks what comes of it.

    Args:
        source: an auto class of transformers.
        name: folder or hub id.
        what: the model's part, for messages: "model", "guard".
        settings: for `from_pretrained`. Code from the folder is run only where `trust_remote_code` is among them.

    Raises:
        InputError: it cannot be loaded; or weights are missing, left over, of other shapes or not finite.
    """
    revision = settings.get("revision")
    folder = local_folder(name, revision)
    if folder:
        check_files(folder)
    try:
        model, info = source.from_pretrained(
            name, **{"trust_remote_code": False, **settings, "output_loading_info": True}
        )
    except Exception as error:  # damaged files and absent packages make the libraries raise anything
        raise unloadable(what, name, revision, error) from error
    _check_complete(what, name, info)
    _check_generation(what, name, model)
    check_finite(model, f"The {what} '{name}'", "The file is damaged, or training diverged: give a sound copy.")
    return model


def _check_complete(what: str, name: str, info: Any) -> None:
    missing = sorted(info["missing_keys"])
    left_over = sorted(key for key in info["unexpected_keys"] if not HARMLESS.search(key))
    others = sorted(str(key[0]) for key in info["mismatched_keys"])
    if not (missing or left_over or others or info["error_msgs"]):
        return
    faults = [
        f"{len(missing)} weights of the architecture are not in its files, such as {_some(missing)}" if missing else "",
        f"{len(left_over)} saved weights belong to nothing in it, such as {_some(left_over)}" if left_over else "",
        f"{len(others)} have other shapes, such as {_some(others)}" if others else "",
        *map(str, info["error_msgs"]),
    ]
    raise InputError(
        f"The {what} '{name}' is not whole: {'; '.join(filter(None, faults))}. transformers would fill what is missing "
        f"with random numbers. {_rename(missing, left_over)}"
    )


def _check_generation(what: str, name: str, model: Any) -> None:
    """Transformers takes any value for a generation setting, and stumbles over it when the first answer is due."""
    from transformers import GenerationConfig

    settings, known = getattr(model, "generation_config", None), GenerationConfig().to_dict()
    for key, value in ({} if settings is None else settings.to_diff_dict()).items():
        if key.endswith("_token_id"):
            ids = value if isinstance(value, list) else [value]
            sound = all(isinstance(one, int) and not isinstance(one, bool) for one in ids if one is not None)
        else:
            sound = not isinstance(value, list | dict) or key.endswith(_LISTED) or key not in known
        if not sound:
            raise InputError(
                f"The {what} '{name}' cannot generate: generation_config.json (or config.json) has {key}: {value!r}. "
                "Correct it, or give the file that belongs to the model."
            )


def _some(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names[:2])


def _rename(missing: Sequence[str], left_over: Sequence[str]) -> str:
    """What to do: names that differ by a wrapper's prefix are the commonest fault."""
    for name in left_over:
        for wanted in missing:
            if name != wanted and (name.endswith(f".{wanted}") or wanted.endswith(f".{name}")):
                return (
                    f"It was saved from inside a wrapper: rename '{name}' to '{wanted}' and so on (in Python, save "
                    "`model.module`, or for torch.compile `model._orig_mod`, with save_pretrained)."
                )
    return "Save it again with save_pretrained from the class that config.json names, or give the complete files."


def check_finite(model: Any, subject: str, advice: str, names: Iterable[str] | None = None) -> None:
    """Every parameter of a model is finite.

    Args:
        model: any module; what is offloaded or stored as integers is passed over.
        subject: for the message.
        advice: for the message.
        names: of the parameters to look at; None is all.

    Raises:
        InputError: one is not.
    """
    import torch

    wanted = None if names is None else set(names)
    for name, parameter in model.named_parameters():
        if (wanted is not None and name not in wanted) or parameter.device.type == "meta":
            continue
        if parameter.is_floating_point() and parameter.element_size() > 1 and not torch.isfinite(parameter).all():
            raise InputError(f"{subject} has values in '{name}' that are not finite (NaN or infinite). {advice}")


def unloadable(what: str, name: str, revision: str | None, error: Exception) -> InputError:
    """The one message for whatever stopped a load: what, which, why, and what mends it."""
    if isinstance(error, InputError):
        return error
    at = f" at revision '{revision}'" if revision else ""
    return InputError(f"Cannot load the {what} '{name}'{at}: {_reason(error)} {_advice(name, revision, error)}")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if "size mismatch" in line), lines[0] if lines else "")
    text = f"{type(error).__name__}: {text}" if isinstance(error, KeyError) or not text else text
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _advice(name: str, revision: str | None, error: Exception) -> str:
    folder, text = local_folder(name, revision), str(error)
    config = _config(folder)
    method = str((config.get("quantization_config") or {}).get("quant_method", ""))
    if isinstance(error, ImportError) or (method and "install" in text):
        named = getattr(error, "name", None) or re.search(r"pip install (?:-U )?'?([\w.-]+)", text)
        package = _PACKAGES.get(method) or (named if isinstance(named, str) else named.group(1) if named else None)
        return f"Run `pip install {package}`." if package else "Install the package that is named."
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "Its architecture is code in the model's own folder, which is not run here. Give a model whose "
            "architecture is part of transformers."
        )
    if "model_type" in text or "model type" in text:
        return (
            f"config.json says model_type {config.get('model_type')!r}. Correct it, or run "
            "`pip install --upgrade transformers` if it is newer than the one installed."
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
