"""Checkpoints of both kinds: an adapter to put on a base model, or a whole fine-tuned model."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...errors import InputError
from .files import check_files, deciding_files, files_digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .devices import Spread

__all__ = [
    "Kind",
    "attach_zero_lora",
    "full_digest",
    "kind_of",
    "load_checkpoint_model",
    "load_start",
    "save_full",
    "save_start",
    "take_full",
]

Kind = Literal["adapter", "full"]


def kind_of(folder: str | Path) -> Kind:
    """What a checkpoint folder holds, told by its files; nothing is loaded.

    Raises:
        InputError: it holds neither a PEFT adapter nor a whole model with safetensors weights.
    """
    folder = Path(folder)
    if (folder / "adapter_config.json").is_file():
        return "adapter"
    if (folder / "config.json").is_file() and _weights(folder):
        return "full"
    raise InputError(
        f"'{folder}' is no checkpoint: it holds neither adapter_config.json nor config.json with model*.safetensors. "
        "Give a folder that a method built."
    )


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def load_checkpoint_model(
    base: str,
    folder: str | Path | None,
    revision: str | None = None,
    dtype: str = "auto",
    device: "str | Spread | None" = None,
    *,
    parent: str | Path | None = None,
    trainable: bool = False,
) -> Any:
    """Loads the model that a checkpoint stands for, in eval mode.

    Args:
        base: folder or hub id of the base model.
        folder: the checkpoint; None is the base model itself.
        revision: of the base, on the hub.
        dtype: as for `load_base`.
        device: as for `load_base`.
        parent: the checkpoint that the one in `folder` was made from. Where that is a whole model, an adapter
            goes on it instead of on the base.
        trainable: whether the parameters of an adapter require gradients.

    Returns:
        A PEFT model for an adapter, else a plain model.

    Raises:
        InputError: the folder is no checkpoint, or model or adapter cannot be loaded.
    """
    from .loading import load_adapter, load_base

    if folder is not None and kind_of(folder) == "full":
        return load_base(str(folder), None, dtype, device)
    if folder is not None and parent is not None and kind_of(parent) == "full":
        base, revision = str(parent), None
    model = load_base(base, revision, dtype, device)
    return model if folder is None else load_adapter(model, folder, trainable)


def save_full(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: str | Path) -> None:
    """Saves a whole model as an ordinary transformers folder: config.json, safetensors weights, tokenizer."""
    from .loading import gathered_of

    model.save_pretrained(str(folder), **gathered_of(model))
    tokenizer.save_pretrained(str(folder))


def attach_zero_lora(model: "PreTrainedModel", lora: Mapping[str, Any], seed: int) -> Any:
    """Freezes a whole model and puts a LoRA adapter with B = 0 on it, in whose space it can be restored.

    The function is unchanged. As dL/dA = s·Bᵀ(dL/dW) vanishes with B, at first only B has a gradient.

    Args:
        model: the fully fine-tuned model; its modules are wrapped in place.
        lora: rank, alpha, dropout and target_modules; what is left out is the paper's (rank 32 on queries and values).
        seed: decides the random A.

    Returns:
        The PEFT model in eval mode, its adapter trainable and fp32.

    Raises:
        InputError: unknown settings, or no module has one of the target names.
    """
    from .loading import new_adapter

    return new_adapter(model, lora, seed).eval()


def load_start(
    base: str,
    folder: str | Path,
    lora: Mapping[str, Any],
    seed: int = 0,
    revision: str | None = None,
    dtype: str = "auto",
    device: "str | Spread | None" = None,
) -> "tuple[Any, PreTrainedTokenizerBase]":
    """Loads what a post-hoc method starts from, as a PEFT model whose adapter can be moved, and its tokenizer.

    Args:
        base: folder or hub id of the base model.
        folder: what was made of it: an adapter, or a whole model, on which a new adapter with B = 0 is put; the base's
            weights stay in memory beside it, for `as_base`.
        lora: rank, alpha, dropout and target_modules of a new adapter.
        seed: of a new adapter.
        revision: of the base, on the hub.
        dtype: as for `load_base`.
        device: as for `load_base`.

    Raises:
        InputError: the folder is no checkpoint of this base, or model or adapter cannot be loaded.
    """
    from .loading import load_base, load_tokenizer, load_tuned
    from .reference import remember_base

    if Path(folder).is_dir() and kind_of(folder) == "full":
        tuned = load_base(str(folder), None, dtype, device)
        model = attach_zero_lora(tuned, lora, seed)
        remember_base(model, tuned, load_base(base, revision, dtype, device))
        return model, load_tokenizer(str(folder))
    return load_tuned(base, folder, revision, dtype, device, trainable=True)


def save_start(
    model: Any, tokenizer: "PreTrainedTokenizerBase", folder: str | Path, base: str, start: str | Path
) -> None:
    """Saves a model of `load_start` as what it was loaded from: an adapter, or a whole model with the adapter merged.

    Args:
        model: the PEFT model; where it is saved as a whole model, its adapter is gone afterwards.
        tokenizer: saved with a whole model; with an adapter, that which lay beside the one it was loaded from.
        folder: where to.
        base: noted in an adapter's config.
        start: the folder that it was loaded from.

    Raises:
        InputError: the adapter cannot be merged (`merge.check_untied`).
    """
    from .adapter_files import carry_tokenizer
    from .loading import save_adapter
    from .merge import merged

    if kind_of(start) == "full":
        save_full(merged(model), tokenizer, folder)
        return
    save_adapter(model, folder, base)
    carry_tokenizer(start, folder)


def full_digest(folder: str | Path) -> str:
    """SHA-256 over all that decides what a whole model answers (64 hex digits), wherever the folder lies.

    Raises:
        InputError: the folder holds no whole model.
    """
    folder = Path(folder)
    if kind_of(folder) != "full":
        raise InputError(f"'{folder}' holds an adapter, not a whole model.")
    return files_digest(folder)


def take_full(source: Path, target: Path) -> None:
    """Puts a whole model's files into another folder: as hard links, as copies where the disk is another one.

    Raises:
        InputError: `source` holds no sound whole model.
    """
    if kind_of(source) != "full":
        raise InputError(f"'{source}' is an adapter, no whole model. Give it to `lora: {{adapter: …}}`.")
    check_files(source)
    for path in deciding_files(source):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            place.hardlink_to(path.resolve())
        except OSError:  # another disk, or one without links
            shutil.copy(path, place)
