"""Vaccine's perturbation: the worst offset of a given length on all attention outputs at once (arXiv 2402.01109)."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import Trainer

from ...errors import InputError

__all__ = ["AttentionPerturbation", "VaccineTrainer", "attention_modules", "vaccine_trainer"]

ATTENTION = "self_attn"
"""What Llama, Qwen, Mistral, Gemma, Phi and OPT call the attention module of a layer."""


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The attention modules of all layers, by name (wrappers such as PEFT's only lengthen the names).

    Raises:
        InputError: there is none, so that a perturbation would do nothing.
    """
    found = {name: module for name, module in model.named_modules() if name.split(".")[-1] == ATTENTION}
    if not found:
        raise InputError(
            f"{type(model).__name__} has no module named '*.{ATTENTION}' whose output Vaccine could perturb. "
            "Use a Llama, Qwen, Mistral or Gemma model, or leave the method out."
        )
    return found


class AttentionPerturbation:
    """Within a `with` block, adds an offset epsilon_l [rows, tokens, hidden] to the output of every attention module l.

    The offsets are zero until `aim`. Hooks act in recomputed forward passes (gradient checkpointing) as in first ones,
    so the block has to enclose the backward pass; they are gone when it ends, by an exception too.
    """

    def __init__(self, model: nn.Module, rho: float) -> None:
        """Finds the attention modules.

        Args:
            model: a causal LM or PEFT model.
            rho: joint L2 norm of all offsets: over layers, rows of the micro-batch, tokens and hidden units.

        Raises:
            InputError: the model has no attention module of a known name.
        """
        self._modules = attention_modules(model)
        self._device = next(model.parameters()).device
        self._rho = rho
        self._probing = False
        self._handles: list[Any] = []
        self.offsets: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.offsets = {}

    def aim(self, loss: Callable[[], Tensor]) -> None:
        """Sets epsilon = rho * g / ‖g‖, g being the gradient of the loss by all attention outputs.

        This is equation 2 of docs/methods/vaccine.md.
        No `.grad` is touched, and the random state is as it was: the pass that follows draws the same dropout masks.
        A gradient of zero gives offsets of zero; padding, which the loss does not depend on, gets none.

        Args:
            loss: runs the forward pass on one micro-batch and returns its loss, of whatever scale.
        """
        self.offsets, self._probing = {}, True
        try:
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                gradients = torch.autograd.grad(loss(), list(self.offsets.values()))
        finally:
            self._probing = False
        wide = torch.promote_types(torch.float32, gradients[0].dtype)  # of 16 bits, squares would over- or underflow
        lengths = [torch.linalg.vector_norm(part, dtype=wide).to(self._device) for part in gradients]
        length = torch.stack(lengths).norm()
        scale = torch.where(length == 0, length, self._rho / length)
        self.offsets = {
            name: (part.to(wide) * scale.to(part.device)).to(part.dtype)
            for name, part in zip(self.offsets, gradients, strict=True)
        }

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def shifted(module: nn.Module, arguments: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            if self._probing and name not in self.offsets:  # a recomputation finds the offset of the first pass
                self.offsets[name] = torch.zeros_like(hidden, requires_grad=True)
            if name not in self.offsets:
                return output
            moved = hidden + self.offsets[name]
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        return shifted


class VaccineTrainer(Trainer):
    """A Trainer whose every micro-batch is learnt under the perturbation that is worst for it."""

    rho = 2.0

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor | Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch: a pass that aims the perturbation, then a training pass under it.

        Returns:
            The loss under the perturbation.
        """
        model.train()
        inputs = self._prepare_inputs(inputs)

        def loss() -> Tensor:
            with self.compute_loss_context_manager():
                return cast(Tensor, self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch))

        with AttentionPerturbation(model, self.rho) as perturbation:
            perturbation.aim(loss)
            return super().training_step(model, inputs, num_items_in_batch)


def vaccine_trainer(rho: float) -> type[Trainer]:
    """The Trainer class with a perturbation of joint norm `rho` per micro-batch."""
    return type("VaccineTrainer", (VaccineTrainer,), {"rho": rho})
