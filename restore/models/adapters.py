"""Which parameters of a PEFT model a restoration moves, and which adapters it refuses."""

from itertools import pairwise
from typing import Any

from torch import nn

from ...errors import InputError
from .adapter_files import check_same_base

__all__ = ["check_exact_gradients", "lora_parameters"]


def lora_parameters(model: Any) -> list[tuple[str, nn.Parameter]]:
    """The named parameters of the one active LoRA adapter.

    Modules that the adapter saves whole (`modules_to_save`), biases and added tokens are not among them.

    Raises:
        InputError: the model is no causal PEFT model, its adapter is not LoRA, not the only active one, merged,
            disabled or offloaded, or without it the model is not its base (`check_same_base`).
    """
    name = _active_adapter(model)
    check_same_base(vars(model.peft_config[name]))
    _check_causal(model.get_base_model())
    if any(getattr(module, "merged", False) is True for module in model.modules()):
        raise InputError("The adapter is merged into the base model. Call unmerge_adapter() first.")
    if any(getattr(module, "disable_adapters", False) is True for module in model.modules()):
        raise InputError(f"The adapter '{name}' is disabled. Call enable_adapter_layers() first.")
    found = [(n, p) for n, p in model.named_parameters() if _belongs_to(n, name)]
    if not found:
        raise InputError(f"The active adapter '{name}' has no LoRA parameters.")
    away = [n for n, p in found if p.device.type == "meta"]
    if away:
        raise InputError(
            f"{len(away)} parameters of the adapter '{name}' are offloaded, such as '{away[0]}'. Base weights may be; "
            "load the adapter with a device_map that keeps its modules on a device."
        )
    return found


def _active_adapter(model: Any) -> str:
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        raise InputError(f"Expected a PEFT model, got {type(model).__name__}. Load it with PeftModel.from_pretrained.")
    active = model.active_adapters
    if len(active) != 1:
        raise InputError(f"{len(active)} adapters are active: {active}. Activate one with set_adapter.")
    kind = model.peft_config[active[0]].peft_type
    if kind != "LORA":
        raise InputError(
            f"The active adapter '{active[0]}' is {str(kind).split('.')[-1]}. Only LoRA adapters can be restored."
        )
    return str(active[0])


def _check_causal(base: Any) -> None:
    generates = getattr(base, "can_generate", lambda: False)()
    if not generates or getattr(base.config, "is_encoder_decoder", False):
        raise InputError(f"{type(base).__name__} is no causal language model. Load it with AutoModelForCausalLM.")


def _belongs_to(parameter: str, adapter: str) -> bool:
    """Whether a name reads ....lora_A.<adapter>.weight; the adapter's name may be that of a module as well."""
    parts = parameter.split(".")
    return any(part.startswith("lora_") and after == adapter for part, after in pairwise(parts))


def check_exact_gradients(model: Any) -> None:
    """Refuses variants of LoRA but rsLoRA, which differs in a constant.

    DoRA treats the norm of the adapted weight as a constant in the backward pass: what it computes is not the gradient
    of its loss (16% off, on a small model), so differences of gradients say nothing of curvature.

    Raises:
        InputError: a module of the active adapter is a variant.
    """
    name = _active_adapter(model)
    for module in model.modules():
        variant = getattr(module, "lora_variant", {}).get(name) if hasattr(module, "lora_A") else None
        if variant is not None:
            kind = "DoRA" if "Dora" in type(variant).__name__ else type(variant).__name__
            raise InputError(
                f"The adapter '{name}' is {kind}, a variant of LoRA whose gradients need not be those of its loss. "
                "Only plain LoRA and rsLoRA can be restored: merge the adapter into the model and restore that with "
                "attach_zero_lora."
            )
