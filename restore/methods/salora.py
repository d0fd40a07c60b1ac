"""SaLoRA: fine-tuning that keeps out of the directions of the aligned model's refusals."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import InputError
from ..method import BuildContext, Built, Stage

if TYPE_CHECKING:
    from torch import Tensor

    from ..losses.encoding import Encoded

__all__ = ["SaLora"]


@dataclass(frozen=True)
class SaLora:
    """LoRA with updates s C_S B A, where C_S removes the leading output directions on refusals; task-specific start."""

    name: ClassVar[str] = "salora"
    stage: ClassVar[Stage] = "fine-tuning"
    summary: ClassVar[str] = "SaLoRA: fine-tuning outside the output directions of the aligned model's refusals."
    paper: ClassVar[str] = "arXiv 2501.01765"
    licence: ClassVar[str] = "Apache-2.0"
    needs: ClassVar[tuple[str, ...]] = ("task_train", "safety")

    safety_rank: int = 32
    """Directions of each module that no update may reach: below the module's number of outputs."""
    task_rank: int = 32
    """Directions of each module that the adapter starts in."""
    task_samples: int = 128
    """Task rows, drawn by the run's seed, that these are taken from. Of the safety rows all are used."""
    max_new_tokens: int = 64
    """Length of the refusals that are generated for safety rows without a response."""

    def __post_init__(self) -> None:
        for name in ("safety_rank", "task_rank", "task_samples", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be at least 1.")

    def build(self, context: BuildContext) -> Built:
        """Trains on `task_train` and saves an ordinary adapter of twice the rank for the original weights.

        Raises:
            InputError: the model, the rows or the adapter's settings are unusable, a rank does not fit a module, or
                training diverges.
        """
        from ..finetuning.constrained import as_ordinary_adapter, constrained, start_from_weights
        from ..finetuning.training import train
        from ..losses.encoding import encode_all
        from ..models.loading import load_base, load_tokenizer, new_adapter, save_adapter
        from ..restoration.refusals import safe_rows

        tokenizer = load_tokenizer(context.base, context.revision)
        rows = encode_all(tokenizer, context.data["task_train"], "task_train", context.max_length)
        base = load_base(context.base, context.revision, context.dtype, context.device)
        model = new_adapter(base, context.lora, context.seed, context.revision)
        self._check_ranks(model)
        size = context.finetune.micro_batch_size
        refusals, prompts = safe_rows(
            model, tokenizer, context.data["safety"], self.max_new_tokens, size, context.max_length
        )
        safety, task = self._directions(model, tokenizer, refusals, rows, context)
        left = start_from_weights(model, safety, task)
        if context.finetune.gradient_checkpointing:
            model.enable_input_require_grads()
        losses: list[float] = []

        def progress(done: int, total: int, loss: float) -> None:
            losses.append(loss)
            context.tick("training", done, total)

        with constrained(model, safety):
            train(model, tokenizer, rows, context.finetune, context.seed, progress)
        save_adapter(as_ordinary_adapter(model, safety, context.seed), context.output, context.base)
        details: dict[str, Any] = {
            "steps": len(losses), "first_loss": losses[0], "last_loss": losses[-1], "rows": len(rows),
            "safety_rows": len(refusals), "least_safety_rank": min(u.shape[1] for u in safety.values()),
            "least_task_rank": min(u.shape[1] for u in task.values()), "least_of_start_left": min(left.values()),
        }  # fmt: skip
        return Built(safety_examples=len(prompts), details=details)

    def _directions(
        self, model: Any, tokenizer: Any, refusals: "list[Encoded]", rows: "list[Encoded]", context: BuildContext
    ) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
        """U_C and U_t of every adapted module, both of the untouched model (its fresh adapter adds nothing)."""
        import random

        from ..finetuning.constrained import linear_modules
        from ..finetuning.subspace import response_directions
        from ..losses.encoding import pad_id_of

        drawn = random.Random(f"{context.seed} salora").sample(rows, min(self.task_samples, len(rows)))
        modules, pad, size = linear_modules(model), pad_id_of(tokenizer), context.finetune.micro_batch_size
        total = len(refusals) + len(drawn)
        safety = response_directions(
            model, modules, refusals, self.safety_rank, size, pad,
            lambda count: context.tick("capturing outputs", count, total),
        )  # fmt: skip
        task = response_directions(
            model, modules, drawn, self.task_rank, size, pad,
            lambda count: context.tick("capturing outputs", len(refusals) + count, total),
        )  # fmt: skip
        return safety, task

    def _check_ranks(self, model: Any) -> None:
        from ..finetuning.constrained import linear_modules

        rank = model.peft_config[model.active_adapter].r
        for name, module in linear_modules(model).items():
            outputs, least = module.out_features, min(module.out_features, module.in_features)
            for what, value, most in (
                ("safety_rank", self.safety_rank, outputs - 1), ("task_rank", self.task_rank, outputs),
                ("The adapter's rank", rank, least),
            ):  # fmt: skip
                if value > most:
                    raise InputError(
                        f"{what}={value} is too large for '{name}' with {module.in_features} inputs and {outputs} "
                        f"outputs: give at most {most}."
                    )
