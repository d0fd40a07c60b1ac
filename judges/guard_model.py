"""Finding a Llama Guard: its config, tokenizer, version and weights, and the errors when it cannot be had."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..restore.models.files import check_files
from ..restore.models.fitting import pad_inside
from ..restore.models.whole import load_whole
from .digests import folder_digest
from .guard_prompt import GuardPrompt

__all__ = ["VERSIONS", "GuardFiles", "find_guard", "load_weights"]

VERSIONS = ("2", "3", "3-1b", "4")
_NAMES = {"4": r"llama-?guard-?4", "3-1b": r"llama-?guard-?3-?1b", "3": r"llama-?guard-?3", "2": r"llama-?guard-?2"}


@dataclass(frozen=True)
class GuardFiles:
    """A guard without its weights."""

    model: str
    """Hub id, or folder."""
    revision: str | None
    """The commit on the hub, whatever branch or tag was asked for; None for a folder."""
    version: str
    """Which of `VERSIONS`: what its category codes mean."""
    config: Any
    tokenizer: Any
    prompt: GuardPrompt
    digest: str
    """Of the weights: of a folder's files, or the hub's commit."""
    ends: tuple[int, ...]
    """Tokens that end an answer, by the model's settings or the tokenizer's."""

    @property
    def multimodal(self) -> bool:
        """Whether it reads images as well."""
        return hasattr(self.config, "vision_config")

    @property
    def window(self) -> int:
        """Longest sequence that the guard can read, in tokens."""
        return int(self.config.get_text_config().max_position_embeddings)


def find_guard(model: str, revision: str | None, version: str | None) -> GuardFiles:
    """Loads everything but the weights.

    Args:
        model: hub id or folder.
        revision: branch, tag or commit on the hub.
        version: one of `VERSIONS`, or None to tell it from name, config and template.

    Raises:
        InputError: the model is absent, gated, damaged or no Llama Guard.
    """
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    if Path(model).is_dir():
        check_files(Path(model))
    try:
        config = AutoConfig.from_pretrained(model, revision=revision)
        commit = None if Path(model).is_dir() else _commit(model, revision)
        multimodal = hasattr(config, "vision_config")  # then the template belongs to the processor
        source: Any = AutoProcessor if multimodal else AutoTokenizer
        renderer = source.from_pretrained(model, revision=commit or "main")
    except ImportError as error:  # the processor of Llama Guard 4 brings an image processor along
        raise InputError(f"The guard '{model}' is multimodal: `pip install pillow torchvision`. ({error})") from error
    except Exception as error:  # absent, gated, of an unknown architecture, or with damaged settings
        raise InputError(_absent(model, error)) from error
    tokenizer = renderer.tokenizer if multimodal else renderer
    prompt = GuardPrompt(renderer, tokenizer)
    pad_inside(tokenizer, int(config.get_text_config().vocab_size), prompt.template + prompt.opening)
    return GuardFiles(
        model=model,
        revision=commit,
        version=version or _tell_version(model, config.model_type, prompt),
        config=config,
        tokenizer=tokenizer,
        prompt=prompt,
        digest=commit or folder_digest(Path(model)),
        ends=_ends(model, commit or "main", config, tokenizer),
    )


def load_weights(files: GuardFiles, device: str | None, dtype: str) -> Any:
    """The model in evaluation mode, on `device` (None: the GPU if there is one).

    Raises:
        InputError: the weights are absent or gated, missing in part, left over or not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    source: Any = AutoModelForImageTextToText if files.multimodal else AutoModelForCausalLM
    model = load_whole(source, files.model, "guard", revision=files.revision or "main", dtype=dtype)
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _commit(model: str, revision: str | None) -> str:
    """The commit that the hub served for a branch or tag; everything else is then loaded from that one.

    Raises:
        OSError: the model is not in the hub's cache, although its config was just loaded.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json", revision=revision)
    if not isinstance(config, str):
        raise OSError("the hub's cache does not hold its config.")
    return Path(config).parent.name


def _ends(model: str, revision: str, config: Any, tokenizer: Any) -> tuple[int, ...]:
    from transformers import GenerationConfig

    try:
        settings = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # a model need not have a file of them
        settings = GenerationConfig.from_model_config(config)
    given = [settings.eos_token_id, tokenizer.eos_token_id]
    listed = [token for one in given if one is not None for token in (one if isinstance(one, list) else [one])]
    return tuple(sorted(set(listed)))


def _tell_version(model: str, model_type: str, prompt: GuardPrompt) -> str:
    """Version by name, else by what tells the templates apart.

    Raises:
        InputError: the template is that of the first Llama Guard, whose categories (O1-O6) are others.
    """
    if re.search(r"\bO1\b", prompt.opening):
        raise InputError(
            f"'{model}' is a Llama Guard 1 (categories O1-O6), which is not supported. Use version 2 or later."
        )
    for version, pattern in _NAMES.items():
        if re.search(pattern, Path(model).name, re.IGNORECASE):
            return version
    if model_type.startswith("llama4") or "<|header_start|>" in prompt.opening:
        return "4"
    if "[INST]" in prompt.opening:
        return "2"
    return "3-1b" if prompt.listed else "3"


def _absent(model: str, error: Exception) -> str:
    """One message for a model that cannot be had: a folder, or a hub id with the page to ask for access."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if Path(model).is_dir():
        return f"The folder '{model}' holds no model that can be loaded: {reason}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        return f"No guard at '{model}': no such folder, and not a hub id (those look like meta-llama/Llama-Guard-3-8B)."
    return (
        f"Cannot load the guard '{model}': {reason} If it is gated, request access at https://huggingface.co/{model} "
        "and log in with `hf auth login`; or give a folder that holds it."
    )
