"""Base models, tokenizers and LoRA adapters: loading, creating and saving, with errors a user can act on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ...errors import InputError

__all__ = ["load_adapter", "load_base", "load_tokenizer", "new_adapter", "save_adapter"]

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
LORA_DEFAULTS: Mapping[str, Any] = {"rank": 32, "alpha": 32, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
"""The paper's adapter (section 4.1: rank 32 on queries and values); it names no alpha, so nothing is scaled."""


def _dtype(dtype: str, device: str) -> torch.dtype | str:
    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"Unknown dtype '{dtype}'. Use auto, float32, bfloat16 or float16.")
    return found


def _unloadable(what: str, name: str, revision: str | None, error: Exception) -> InputError:
    at = f" at revision '{revision}'" if revision else ""
    first = str(error).strip().splitlines()
    reason = first[0] if first else type(error).__name__
    return InputError(
        f"Cannot load the {what} '{name}'{at}: {reason} "
        "Give an existing folder, or a hub id that this machine can reach (offline, it must be in the hub cache)."
    )


def load_base(
    name: str, revision: str | None = None, dtype: str = "auto", device: str | None = None
) -> PreTrainedModel:
    """Loads a causal language model in eval mode.

    Args:
        name: folder or hub id.
        revision: commit, branch or tag on the hub.
        dtype: a torch dtype by name; "auto" is float32 on the CPU and the checkpoint's own dtype elsewhere.
        device: "cpu", "cuda", ...; the default is CUDA where there is any.

    Raises:
        InputError: the model cannot be found or read, or the dtype is unknown.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=_dtype(dtype, device))
    except OSError as error:
        raise _unloadable("model", name, revision, error) from error
    return model.to(device).eval()  # type: ignore[no-any-return]  # what the auto classes return is untyped


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a folder or hub id.

    Raises:
        InputError: it cannot be found or read.
    """
    try:
        return AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:  # transformers says ValueError where a folder holds no tokenizer
        raise _unloadable("tokenizer", name, revision, error) from error


def new_adapter(model: PreTrainedModel, lora: Mapping[str, Any], seed: int, revision: str | None = None) -> Any:
    """Puts a fresh, trainable LoRA adapter with fp32 parameters on `model` and returns the PEFT model.

    Args:
        model: the base; its modules are wrapped in place.
        lora: rank, alpha, dropout and target_modules; what is left out is the paper's.
        seed: decides the random half of the initial adapter (the other half is zero, so the function is unchanged).
        revision: the base's hub revision, noted in the adapter's config.

    Raises:
        InputError: an unknown setting, or no module of the model has one of the target names.
    """
    from peft import LoraConfig, get_peft_model

    unknown = set(lora) - set(LORA_DEFAULTS)
    if unknown:
        raise InputError(f"Unknown adapter settings {sorted(unknown)}. Known: {', '.join(LORA_DEFAULTS)}.")
    chosen = {**LORA_DEFAULTS, **lora}
    set_seed(seed)
    config = LoraConfig(
        r=chosen["rank"],
        lora_alpha=chosen["alpha"],
        lora_dropout=chosen["dropout"],
        target_modules=list(chosen["target_modules"]),
        task_type="CAUSAL_LM",
        revision=revision,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"Cannot add a LoRA adapter with {chosen} to '{model.name_or_path}': {error}") from error


def _check_files(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"The adapter folder '{folder}' does not exist. Give the folder that save_pretrained wrote.")
    weights = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    if not (folder / "adapter_config.json").is_file() or not weights:
        raise InputError(
            f"'{folder}' is no PEFT adapter: it needs adapter_config.json and {' or '.join(ADAPTER_WEIGHTS)}. "
            "Give the folder that save_pretrained of a PEFT model wrote."
        )
    return weights[0]


def _saved_names(weights: Path) -> set[str]:
    if weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(str(weights), framework="pt") as file:
            return set(file.keys())
    return set(torch.load(weights, map_location="meta", weights_only=True))


def load_adapter(model: PreTrainedModel, folder: str | Path, trainable: bool = False) -> Any:
    """Puts the saved adapter on `model` (its modules are wrapped in place) and returns the PEFT model in eval mode.

    Raises:
        InputError: the folder or one of its files is missing, or the adapter was made for a model of other shapes.
    """
    from peft import PeftModel, get_peft_model_state_dict

    folder = Path(folder)
    saved = _saved_names(_check_files(folder))
    unfit = f"The adapter '{folder}' does not fit the model '{model.name_or_path}'"
    advice = "Give the base model that the adapter was trained on (base_model_name_or_path in adapter_config.json)."
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:  # other shapes; other module names
        raise InputError(f"{unfit}: {str(error).strip()[:400]} {advice}") from error
    expected = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    strays = sorted(name for name in saved ^ expected if "lora_" in name)
    if strays:
        raise InputError(
            f"{unfit}: {len(strays)} of its parameters have no counterpart, such as '{strays[0]}'. {advice}"
        )
    return adapted.eval()


def save_adapter(model: Any, folder: str | Path, base: str | None = None) -> None:
    """Saves the active adapter of a PEFT model as a standard PEFT folder; `base` is noted as its base model's name."""
    if base is not None:
        model.peft_config[model.active_adapter].base_model_name_or_path = base
    model.save_pretrained(str(folder), selected_adapters=[model.active_adapter])
