"""Base models, tokenizers and LoRA adapters: loading, creating and saving, with errors a user can act on.

All of them are checked whole as they are loaded (`files`, `whole`, `chat`); nothing else loads them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from ...errors import InputError
from .adapter_files import brings_tokenizer, check_adapter
from .advice import mending_names, unloadable
from .devices import Spread, default_device
from .files import check_files, local_folder
from .fitting import fitted, rows_of, table_size
from .tables import state_names, table_names, table_rows
from .whole import check_finite, load_whole

__all__ = [
    "base_tokenizer",
    "gathered_of",
    "load_adapter",
    "load_base",
    "load_tokenizer",
    "load_tuned",
    "new_adapter",
    "save_adapter",
]

ALL_LINEAR = "all-linear"
_PROBE = "safebasin probe"
"""What every tokenizer can encode."""
LORA_DEFAULTS: Mapping[str, Any] = {"rank": 32, "alpha": 32, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
"""The paper's adapter (section 4.1: rank 32 on queries and values); it names no alpha, so nothing is scaled."""


def _dtype(dtype: str, device: str) -> torch.dtype | str:
    if dtype == "auto":
        return torch.float32 if device == "cpu" else "auto"
    found = getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(f"Unknown dtype '{dtype}'. Use auto, float32, bfloat16 or float16.")
    return found


def load_base(
    name: str, revision: str | None = None, dtype: str = "auto", device: str | Spread | None = None
) -> PreTrainedModel:
    """Loads a causal language model in eval mode.

    Args:
        name: folder or hub id.
        revision: commit, branch or tag on the hub.
        dtype: a torch dtype by name; "auto" is float32 on the CPU and the checkpoint's own dtype elsewhere.
        device: "cpu", "cuda", ..., or how it is spread over several; the default is CUDA where there is any.

    Raises:
        InputError: the model cannot be found or read, the dtype is unknown, or weights are missing, left over or not
            finite.
    """
    if isinstance(device, Spread):
        kind = _dtype(dtype, default_device())
        loaded = load_whole(AutoModelForCausalLM, name, "model", revision=revision, dtype=kind, **device.settings)
        return loaded.eval()  # type: ignore[no-any-return]  # as below
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_whole(AutoModelForCausalLM, name, "model", revision=revision, dtype=_dtype(dtype, device))
    return model.to(device).eval()  # type: ignore[no-any-return]  # what the auto classes return is untyped


def load_tokenizer(name: str, revision: str | None = None, trusted: bool = False) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a folder or hub id, fitted to the embedding table of the model that lies there.

    Args:
        name: folder or hub id.
        revision: commit, branch or tag on the hub.
        trusted: whether code from the folder may be run.

    Raises:
        InputError: it cannot be found or read, or `fitted` refuses it.
    """
    folder = local_folder(name, revision)
    if folder:
        check_files(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trusted)
        ids = tokenizer(_PROBE, add_special_tokens=False)["input_ids"]
        tokenizer.decode(ids)
    except Exception as error:  # damaged files make the libraries raise anything
        raise unloadable("tokenizer", name, revision, error) from error
    lost = [token for token in tokenizer.all_special_tokens if tokenizer.convert_tokens_to_ids(token) is None]
    if not ids or lost:
        what = f"has the special token {lost[0]!r}, which its vocabulary lacks" if lost else "makes no tokens of text"
        raise InputError(
            f"The tokenizer '{name}' {what}: tokenizer.json and tokenizer_config.json are damaged or of different "
            "tokenizers. Give the files that belong to the model."
        )
    return fitted(tokenizer, table_size(folder) if folder else None)


def load_tuned(
    base: str,
    adapter: str | Path,
    revision: str | None = None,
    dtype: str = "auto",
    device: str | Spread | None = None,
    trainable: bool = False,
    tokenizer: str | None = None,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Loads a base with an adapter on it, and the tokenizer that belongs to the two.

    That is the adapter's own, where its folder has one (with the base's chat template if it lacks one), else the
    base's. An embedding table is resized to the one that the adapter holds.

    Args:
        base: as for `load_base`, like `revision`, `dtype` and `device`.
        adapter: PEFT folder.
        revision: of the base.
        dtype: of the base.
        device: of both.
        trainable: whether the adapter's parameters require gradients.
        tokenizer: folder or hub id of another one; with the base's chat template if it has none.

    Returns:
        The PEFT model in eval mode, and the tokenizer.

    Raises:
        InputError: as `load_base`, `load_tokenizer` and `load_adapter`.
    """
    check_adapter(adapter)
    found = tokenizer_of(base, adapter, revision) if tokenizer is None else _of_other(tokenizer, base, revision)
    model = load_adapter(load_base(base, revision, dtype, device), adapter, trainable)
    return model, fitted(found, rows_of(model))


def tokenizer_of(base: str, adapter: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of an adapter on a base, before it is fitted to the model; see `load_tuned`.

    Raises:
        InputError: as `load_tokenizer`.
    """
    return _of_other(str(adapter), base, revision) if brings_tokenizer(adapter) else load_tokenizer(base, revision)


def base_tokenizer(base: str, tuned: str | Path | None, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The base's own tokenizer, for what is asked of the base; where it has no chat template, with the tuned model's.

    Raises:
        InputError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(base, revision)
    if not tokenizer.chat_template and tuned is not None and brings_tokenizer(tuned):
        tokenizer.chat_template = load_tokenizer(str(tuned)).chat_template
    return tokenizer


def _of_other(name: str, base: str, revision: str | None) -> PreTrainedTokenizerBase:
    """A tokenizer that is not the base's; with the base's chat template if it has none."""
    tokenizer = load_tokenizer(name)
    if not tokenizer.chat_template:
        tokenizer.chat_template = load_tokenizer(base, revision).chat_template
    return fitted(tokenizer, None)


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
        target_modules=_targets(chosen["target_modules"]),
        task_type="CAUSAL_LM",
        revision=revision,
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"Cannot add a LoRA adapter with {chosen} to '{model.name_or_path}': {error}") from error


def _targets(given: Any) -> str | list[str]:
    """Names of modules, or PEFT's word for all linear layers but the head."""
    return ALL_LINEAR if given in (ALL_LINEAR, [ALL_LINEAR], (ALL_LINEAR,)) else list(given)


def load_adapter(model: PreTrainedModel, folder: str | Path, trainable: bool = False) -> Any:
    """Puts the saved adapter on `model` (its modules are wrapped in place) and returns the PEFT model in eval mode.

    Where the adapter holds an embedding table of another size, the model's is resized first.

    Raises:
        InputError: the folder or one of its files is missing or damaged, weights are missing, left over or not finite,
            or the adapter was made for a model of other shapes.
    """
    from peft import PeftModel

    folder = Path(folder)
    shapes = check_adapter(folder)
    unfit = f"The adapter '{folder}' does not fit the model '{model.name_or_path}'"
    advice = "Give the base model that the adapter was trained on (base_model_name_or_path in adapter_config.json)."
    rows = table_rows(model, shapes)
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, ValueError) as error:  # other shapes; other module names
        raise InputError(f"{unfit}: {str(error).strip()[:400]} {advice}") from error
    except Exception as error:  # settings that PEFT cannot read make it raise anything
        raise unloadable("adapter", str(folder), None, error) from error
    left_over, missing = _strays(adapted, set(shapes))
    if left_over or missing:
        strays = [*left_over, *missing]
        advice = mending_names(missing, left_over) or (advice if left_over and missing else f"{_OTHERS} {advice}")
        raise InputError(
            f"{unfit}: {len(strays)} of its parameters have no counterpart, such as '{strays[0]}'. {advice}"
        )
    check_finite(
        adapted, f"The adapter '{folder}'", "Fine-tuning diverged: train it again.",
        [name for name, _ in adapted.named_parameters() if "lora_" in name or "modules_to_save" in name],
    )  # fmt: skip
    holds: Any = any(name in shapes for name in table_names(adapted))
    adapted.holds_table = holds
    return adapted.eval()


_OTHERS = (
    "adapter_config.json (target_modules, layers_to_transform) and the file of weights name different modules: give "
    "the two files of one adapter."
)


def _strays(adapted: Any, saved: set[str]) -> tuple[list[str], list[str]]:
    """Saved tensors that nothing took, and tensors of the adapter that none was saved for."""
    wanted = state_names(adapted, with_tables=False)
    return sorted(saved - wanted - table_names(adapted)), sorted(wanted - saved)


def gathered_of(model: Any) -> dict[str, Any]:
    """For `save_pretrained`: the whole weights of a model that was sharded as it was trained; empty of all others."""
    whole = getattr(model, "gathered", None)
    return {} if whole is None else {"state_dict": whole, "is_main_process": bool(whole)}


def save_adapter(model: Any, folder: str | Path, base: str | None = None) -> None:
    """Saves the active adapter of a PEFT model as a standard PEFT folder; `base` is noted as its base model's name.

    Embedding tables that it was loaded with are saved again.
    """
    if base is not None:
        model.peft_config[model.active_adapter].base_model_name_or_path = base
    tables = {"save_embedding_layers": True} if getattr(model, "holds_table", False) else {}
    model.save_pretrained(str(folder), selected_adapters=[model.active_adapter], **tables, **gathered_of(model))
    inner = Path(folder) / str(model.active_adapter)
    if model.active_adapter != "default" and inner.is_dir():  # PEFT gives every other name a folder of its own
        for path in inner.iterdir():
            path.replace(Path(folder) / path.name)
        inner.rmdir()
