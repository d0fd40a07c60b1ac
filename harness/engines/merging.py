"""The weights of a checkpoint where they differ from its base's, tensor by tensor under their Hugging Face names."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import InputError
from ...restore.models.adapter_files import adapter_tensors
from ...restore.models.checkpoint import kind_of
from ...restore.models.weight_files import WeightFiles

__all__ = ["changed_weights", "merged_weights"]

_PREFIX = "base_model.model."
_PLAIN: Mapping[str, Any] = {
    "use_dora": False, "bias": "none", "lora_bias": False, "fan_in_fan_out": False, "modules_to_save": None,
    "trainable_token_indices": None, "target_parameters": None, "layer_replication": None,
}  # fmt: skip
"""What a plain LoRA adapter says, where it says anything: only such adapters are one product per matrix."""


def changed_weights(base: str, checkpoint: str | Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors that a checkpoint puts in the place of the base's.

    Args:
        base: folder of the base model.
        checkpoint: a plain LoRA adapter (W + s·BA for each adapted matrix W, summed in float32), or a whole model,
            all of whose tensors come.

    Yields:
        Name and tensor, float32 on the CPU, one in memory at a time.

    Raises:
        InputError: the adapter is of another kind, or does not fit the base.
    """
    checkpoint = Path(checkpoint)
    if kind_of(checkpoint) == "full":
        files = WeightFiles(str(checkpoint))
        yield from ((name, files.read(name)) for name in files.names)
    else:
        yield from _merged(WeightFiles(base), checkpoint)


def merged_weights(base: str, checkpoint: str | Path | None) -> Iterator[tuple[str, Tensor]]:
    """All tensors of a checkpoint (None: of the base), as `changed_weights` has those that differ.

    Raises:
        InputError: as `changed_weights`.
    """
    if checkpoint is not None and kind_of(checkpoint) == "full":
        yield from changed_weights(base, checkpoint)
        return
    files, changed = WeightFiles(base), dict(changed_weights(base, checkpoint)) if checkpoint is not None else {}
    for name in files.names:
        yield name, changed[name] if name in changed else files.read(name)


def _merged(base: WeightFiles, adapter: Path) -> Iterator[tuple[str, Tensor]]:
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    _check_plain(config, adapter)
    factors = adapter_tensors(adapter)
    for module in sorted({name.rpartition(".lora_")[0] for name in factors}):
        try:
            a, b = factors.pop(f"{module}.lora_A.weight").float(), factors.pop(f"{module}.lora_B.weight").float()
        except KeyError as error:
            raise _other_kind(adapter, f"it has no tensor {error}") from error
        name = module.removeprefix(_PREFIX)
        weight = base.read(f"{name}.weight")
        if weight.shape != (b.shape[0], a.shape[1]):
            raise InputError(
                f"The adapter '{adapter}' does not fit the model '{base.model}': '{name}' is {tuple(weight.shape)}, "
                f"its product {(b.shape[0], a.shape[1])}. Give the base that it was trained on."
            )
        yield f"{name}.weight", weight.addmm_(b, a, alpha=_scale(config, name, a.shape[0]))
    if factors:
        raise _other_kind(adapter, f"it holds '{next(iter(factors))}'")


def _check_plain(config: Mapping[str, Any], adapter: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise _other_kind(adapter, f"it is {config.get('peft_type')}")
    for key, plain in _PLAIN.items():
        if config.get(key) not in (plain, None, [], {}):
            raise _other_kind(adapter, f"it has {key}={config[key]!r}")


def _other_kind(adapter: Path, why: str) -> InputError:
    return InputError(
        f"The vllm engine serves plain LoRA and rsLoRA adapters, and '{adapter}' is none: {why}. Use engine: hf."
    )


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """PEFT's alpha / r, or alpha / sqrt(r) of rsLoRA, with an alpha of the module's own where there is one."""
    from peft.utils.other import get_pattern_key

    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = float(patterns.get(get_pattern_key(list(patterns), module), config["lora_alpha"]))
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
