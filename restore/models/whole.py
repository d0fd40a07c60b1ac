"""Loading weights whole: each is there, none is left over, all are finite; or one message says what is wrong."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from .advice import mending_names, unloadable
from .files import check_files, integer_tensors, local_folder, read_json
from .fitting import table_size

__all__ = ["HARMLESS", "check_finite", "load_whole"]

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
        _check_folder(what, name, folder)
        settings = _padding(folder) | settings
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


def _check_folder(what: str, name: str, folder: Path) -> None:
    """What transformers would load without a word, and otherwise than the folder's name says."""
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"The {what} '{name}' holds an adapter (adapter_config.json), which would be put on it unseen. Give the "
            "base model by itself, and the adapter in a folder of its own."
        )
    settings = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    packed = isinstance(settings, dict) and settings.get("quantization_config")
    for path in () if packed else sorted(folder.glob("*.safetensors")):
        if whole := integer_tensors(path):
            raise InputError(
                f"'{path}' has {len(whole)} weights of whole numbers, such as '{whole[0]}', and config.json has no "
                "quantization_config that says how to read them. Give the config.json that belongs to them, or the "
                "model in 16 or 32 bits."
            )


def _padding(folder: Path) -> dict[str, Any]:
    """No padding token where config.json names one outside the embedding table: padding is masked."""
    settings, rows = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}, table_size(folder)
    pad = settings.get("pad_token_id") if isinstance(settings, dict) else None
    return {"pad_token_id": None} if rows is not None and isinstance(pad, int) and not -rows <= pad < rows else {}


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
        f"with random numbers. {mending_names(missing, left_over) or _AGAIN}"
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


_AGAIN = "Save it again with save_pretrained from the class that config.json names, or give the complete files."


def _some(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names[:2])


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
