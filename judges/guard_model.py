"""Finding a judge that is a model: config, tokenizer, prompt and weights, and the errors when it cannot be had."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from ..errors import InputError
from .digests import folder_digest
from .file_prompt import FilePrompt, PromptText
from .guard_prompt import GuardPrompt, Prompt

__all__ = ["VERSIONS", "Adapter", "GuardFiles", "find_guard", "find_llama_guard", "load_weights", "prompt_from"]

MakePrompt = Callable[[Any, Any], Prompt]
"""Makes the prompt from what renders chat templates, and the tokenizer."""
VERSIONS = ("1", "2", "3", "3-1b", "4")
_NAMES = {"4": r"llama-?guard-?4", "3-1b": r"llama-?guard-?3-?1b", "3": r"llama-?guard-?3", "2": r"llama-?guard-?2"}
_NAMES["1"] = r"llama-?guard-?7b"


class Adapter(NamedTuple):
    """A PEFT adapter that is put on the model."""

    model: str
    """Hub id, or folder."""
    revision: str | None
    """The commit on the hub; None for a folder."""


@dataclass(frozen=True)
class GuardFiles:
    """A guard without its weights."""

    model: str
    """Hub id, or folder."""
    revision: str | None
    """The commit on the hub, whatever branch or tag was asked for; None for a folder."""
    config: Any
    tokenizer: Any
    prompt: Prompt
    digest: str
    """Of the weights: of a folder's files, or the hub's commit."""
    ends: tuple[int, ...]
    """Tokens that end an answer, by the model's settings or the tokenizer's."""
    adapter: Adapter | None = None
    version: str = ""
    """Of a Llama Guard: which of `VERSIONS`, which says what its category codes mean."""

    @property
    def multimodal(self) -> bool:
        """Whether it reads images as well."""
        return hasattr(self.config, "vision_config")

    @property
    def window(self) -> int:
        """Longest sequence that the guard can read, in tokens."""
        return int(self.config.get_text_config().max_position_embeddings)


def prompt_from(prompt_file: str | None, **template: Any) -> MakePrompt:
    """The prompt that a file of the user's gives, else the tokenizer's chat template.

    Args:
        prompt_file: see `PromptText`.
        template: how the chat template is used, see `GuardPrompt`.

    Raises:
        InputError: the file cannot be read, or does not name both texts. The function returned raises it where there
            is neither a file nor a chat template.
    """
    if prompt_file is not None:
        text = PromptText(prompt_file)
        return lambda renderer, tokenizer: FilePrompt(text, tokenizer)

    def of_template(renderer: Any, tokenizer: Any) -> Prompt:
        if not getattr(renderer, "chat_template", None):
            raise InputError(
                "The judge's tokenizer has no chat template, so its prompt must be given: prompt_file, the published "
                "text with {prompt} and {response} in it (docs/judges.md says where it is)."
            )
        return GuardPrompt(renderer, tokenizer, **template)

    return of_template


def find_llama_guard(model: str, revision: str | None, version: str | None) -> GuardFiles:
    """Loads everything of a Llama Guard but the weights.

    Args:
        model: hub id or folder.
        revision: branch, tag or commit on the hub.
        version: one of `VERSIONS`, or None to tell it from name, config and template.

    Raises:
        InputError: the model is absent, gated, damaged or no Llama Guard.
    """
    found = find_guard(model, revision, GuardPrompt)
    prompt = cast(GuardPrompt, found.prompt)
    return replace(found, version=version or _tell_version(model, found.config.model_type, prompt))


def find_guard(model: str, revision: str | None, make_prompt: MakePrompt, base: str | None = None) -> GuardFiles:
    """Loads everything but the weights.

    Args:
        model: hub id or folder.
        revision: branch, tag or commit on the hub.
        make_prompt: see `prompt_from`.
        base: hub id or folder of the model that `model` is a PEFT adapter of; None if it is a whole model.

    Raises:
        InputError: the model is absent or gated, or has no prompt.
    """
    if base is None:
        return _find_whole(model, revision, make_prompt)
    adapter = _find_adapter(model, revision)
    found = _find_whole(base, None, make_prompt)
    weights = adapter.revision or folder_digest(Path(model))
    return replace(found, adapter=adapter, digest=f"{weights}+{found.digest}")


def _find_whole(model: str, revision: str | None, make_prompt: MakePrompt) -> GuardFiles:
    from transformers import AutoConfig, AutoProcessor, AutoTokenizer

    from ..restore.models.chat import with_fixed_clock
    from ..restore.models.files import check_files
    from ..restore.models.fitting import pad_inside

    if Path(model).is_dir():
        check_files(Path(model))
    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        commit = None if Path(model).is_dir() else _commit(model, revision)
        multimodal = hasattr(config, "vision_config")  # then the template belongs to the processor
        source: Any = AutoProcessor if multimodal else AutoTokenizer
        renderer = source.from_pretrained(model, revision=commit or "main", trust_remote_code=False)
    except ImportError as error:  # the processor of Llama Guard 4 brings an image processor along
        raise InputError(f"The guard '{model}' is multimodal: `pip install pillow torchvision`. ({error})") from error
    except Exception as error:  # absent, gated, of an unknown architecture, or with damaged settings
        raise InputError(_absent(model, error)) from error
    with_fixed_clock(renderer)
    tokenizer = renderer.tokenizer if multimodal else renderer
    prompt = make_prompt(renderer, tokenizer)
    shown = prompt.template + getattr(prompt, "opening", "")
    pad_inside(tokenizer, int(config.get_text_config().vocab_size), shown)
    return GuardFiles(
        model=model,
        revision=commit,
        config=config,
        tokenizer=tokenizer,
        prompt=prompt,
        digest=commit or folder_digest(Path(model)),
        ends=_ends(model, commit or "main", config, tokenizer, getattr(prompt, "closing", "")),
    )


def _find_adapter(model: str, revision: str | None) -> Adapter:
    from peft import PeftConfig

    try:
        PeftConfig.from_pretrained(model, revision=revision)
        commit = None if Path(model).is_dir() else _commit(model, revision, "adapter_config.json")
    except Exception as error:  # ValueError where there is no adapter_config.json, and anything for what is in it
        raise InputError(f"{_absent(model, error)} It should be a PEFT adapter, as base is given.") from error
    return Adapter(model, commit)


def load_weights(files: GuardFiles, device: str | None, dtype: str) -> Any:
    """The model in evaluation mode, on `device` (None: the GPU if there is one).

    Raises:
        InputError: the weights are absent or gated, missing in part, left over or not finite.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    from ..restore.models.whole import load_whole

    source: Any = AutoModelForImageTextToText if files.multimodal else AutoModelForCausalLM
    model = load_whole(source, files.model, "guard", revision=files.revision or "main", dtype=dtype)
    model = _adapted(model, files.adapter) if files.adapter else model
    return model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _adapted(model: Any, adapter: Adapter) -> Any:
    """The model with the adapter merged into its weights, all of which are taken."""
    from huggingface_hub import snapshot_download

    from ..restore.models.loading import load_adapter

    folder = Path(adapter.model)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(adapter.model, revision=adapter.revision, allow_patterns="adapter_*"))
        except (OSError, ValueError) as error:
            raise InputError(_absent(adapter.model, error)) from error
    return load_adapter(model, folder).merge_and_unload()


def _commit(model: str, revision: str | None, name: str = "config.json") -> str:
    """The commit that the hub served for a branch or tag; everything else is then loaded from that one.

    Raises:
        OSError: the model is not in the hub's cache, although its config was just loaded.
    """
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, name, revision=revision)
    if not isinstance(config, str):
        raise OSError("the hub's cache does not hold its config.")
    return Path(config).parent.name


def _ends(model: str, revision: str, config: Any, tokenizer: Any, closing: str) -> tuple[int, ...]:
    """Tokens that end an answer: those of the configs, and the first that the template writes behind the response.

    That one ends turns, or begins the next.
    """
    from transformers import GenerationConfig

    from ..restore.models.chat import first_added

    try:
        settings = GenerationConfig.from_pretrained(model, revision=revision)
    except OSError:  # a model need not have a file of them
        settings = GenerationConfig.from_model_config(config)
    turn_end = first_added(tokenizer, closing)
    given = [settings.eos_token_id, tokenizer.eos_token_id, turn_end]
    listed = [token for one in given if one is not None for token in (one if isinstance(one, list) else [one])]
    return tuple(sorted(set(listed)))


def _tell_version(model: str, model_type: str, prompt: GuardPrompt) -> str:
    """Version by name, else by what tells the templates apart: Llama Guard 1 has the categories O1-O6."""
    if re.search(r"\bO1\b", prompt.opening):
        return "1"
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
    if "trust_remote_code" in str(error):
        reason = "its architecture is code in its own folder, which is not run here."
    if Path(model).is_dir():
        return f"The folder '{model}' holds no model that can be loaded: {reason}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        return f"No guard at '{model}': no such folder, and not a hub id (those look like meta-llama/Llama-Guard-3-8B)."
    return (
        f"Cannot load the guard '{model}': {reason} If it is gated, request access at https://huggingface.co/{model} "
        "and log in with `hf auth login`; or give a folder that holds it."
    )
