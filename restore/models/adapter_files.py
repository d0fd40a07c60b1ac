"""The files of a PEFT adapter: whole, readable as weights alone, and with the tokenizer that may lie beside them."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from .files import check_files, deciding_files, integer_tensors

__all__ = [
    "ADAPTER_WEIGHTS",
    "adapter_tensors",
    "brings_tokenizer",
    "carry_tokenizer",
    "check_adapter",
    "check_same_base",
    "copy_adapter",
]

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_CONFIG = "adapter_config.json"
_STARTS = ("pissa", "olora", "corda", "loftq")


def check_adapter(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Looks at an adapter's files, and returns the shape of each saved tensor by name.

    Raises:
        InputError: a file is missing, damaged or empty, or no weights are in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The adapter folder '{folder}' does not exist. Give the folder that save_pretrained wrote.")
    weights = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not (folder / _CONFIG).is_file() or not weights:
        raise InputError(
            f"'{folder}' is no PEFT adapter: it needs adapter_config.json and {' or '.join(ADAPTER_WEIGHTS)}. "
            "Give the folder that save_pretrained of a PEFT model wrote."
        )
    check_files(folder)
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(folder, meta=True).items()}
    if not shapes or any(0 in shape for shape in shapes.values()):
        raise InputError(
            f"The adapter '{folder}' holds no weights: {weights[0].name} has {len(shapes)} tensors, "
            f"{sum(0 in shape for shape in shapes.values())} of them empty. So DeepSpeed ZeRO-3 saves parameters that "
            "it has not gathered: set stage3_gather_16bit_weights_on_model_save to true and save again, or run the "
            "zero_to_fp32.py of the checkpoint."
        )
    if weights[0].suffix == ".safetensors" and (whole := integer_tensors(weights[0])):
        raise InputError(
            f"The adapter '{folder}' has weights of whole numbers, such as '{whole[0]}': they were rounded. Save it "
            "again in 16 or 32 bits."
        )
    return shapes


def check_same_base(settings: Mapping[str, Any]) -> None:
    """Refuses adapters of which the base, once they are loaded, is another model than before.

    PiSSA, OLoRA, CorDA and LoftQ change its weights by what the adapter begins with, and layer replication its layers,
    so that neither is the adapter's product the update, nor the model without the adapter the base.

    Args:
        settings: of an adapter_config.json.

    Raises:
        InputError: the adapter is such a one.
    """
    start = str(settings.get("init_lora_weights")).lower()
    if start.startswith(_STARTS):
        raise InputError(
            f"The adapter was initialised by {start}, which changes the base model's weights: without the adapter the "
            "model is not its base. Convert it to plain LoRA, by save_pretrained with "
            "path_initial_model_for_weight_conversion (PEFT's guide to PiSSA and OLoRA)."
        )
    if settings.get("layer_replication"):
        raise InputError(
            "The adapter replicates layers (layer_replication): without it the model is not its base. Only adapters "
            "of the base's own layers can be repaired."
        )


def adapter_tensors(folder: Path, meta: bool = False) -> dict[str, torch.Tensor]:
    """The saved tensors of an adapter by name, on the CPU; with `meta`, their shapes alone.

    Raises:
        InputError: the file cannot be read, or is a pickle of more than tensors.
    """
    from safetensors import safe_open

    weights = next(folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file())
    try:
        if weights.suffix == ".bin":
            return _tensors(torch.load(weights, map_location="meta" if meta else "cpu", weights_only=True))
        with safe_open(str(weights), framework="pt") as file:
            names = file.keys()
            if meta:
                return {name: torch.empty(file.get_slice(name).get_shape(), device="meta") for name in names}
            return {name: file.get_tensor(name) for name in names}
    except Exception as error:  # unpickling damaged files raises anything
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". This file can")[0]
        raise InputError(
            f"'{weights}' cannot be read as weights alone: {first.rstrip('.')}. Copy it again, or save the adapter "
            "with safe_serialization=True."
        ) from error


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    if not isinstance(found, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in found.values()):
        raise TypeError("it is no mapping of names to tensors, as save_pretrained writes it.")
    return found


def brings_tokenizer(adapter: str | Path) -> bool:
    """Whether a tokenizer lies beside the adapter."""
    return (Path(adapter) / "tokenizer_config.json").is_file()


def carry_tokenizer(source: str | Path, target: str | Path) -> None:
    """Copies the tokenizer that lies beside an adapter, if there is one, beside the one that was made from it."""
    if brings_tokenizer(source):
        for path in deciding_files(Path(source)):
            if not path.name.startswith("adapter_") and path.parent == Path(source):
                shutil.copy(path, target)
        if (Path(source) / "chat_templates").is_dir():
            shutil.copytree(Path(source) / "chat_templates", Path(target) / "chat_templates", dirs_exist_ok=True)


def copy_adapter(source: str | Path, target: str | Path) -> None:
    """Copies a PEFT adapter into another folder, byte for byte, with the tokenizer that lies beside it.

    Raises:
        InputError: `source` holds no sound adapter.
    """
    check_adapter(source)
    for name in (_CONFIG, *ADAPTER_WEIGHTS):
        if (Path(source) / name).is_file():
            shutil.copy(Path(source) / name, target)
    carry_tokenizer(source, target)
