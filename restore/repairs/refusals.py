"""The aligned model's inputs on refusals, which closed-form repairs take for what safety is."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..losses.encoding import Encoded, pad_id_of
from ..method import BuildContext
from ..models.loading import base_tokenizer, load_base
from ..models.lora_files import Factors
from ..restoration.refusals import safe_rows
from .inputs import input_moments

__all__ = ["Refusals"]


class Refusals:
    """The aligned model, and at most `rows` safety prompts with refusals, drawn by the run's seed.

    Attributes:
        model: the aligned model.
        tokenizer: its tokenizer.
        rows: the encoded rows.
        prompts: the distinct prompts among them.
    """

    def __init__(self, context: BuildContext, rows: int, max_new_tokens: int) -> None:
        """Loads the model; rows without a `response` get its own answer, and stay if that is a refusal.

        Raises:
            InputError: there are no safety rows, or none is refused.
        """
        self._size, self._tick = context.finetune.micro_batch_size, context.tick
        self.tokenizer = base_tokenizer(context.base, context.parent, context.revision)
        self.model: Any = load_base(context.base, context.revision, context.dtype, context.device)
        given = context.data["safety"]
        drawn = random.Random(f"{context.seed} refusals").sample(list(given), min(rows, len(given)))
        self.rows, self.prompts = safe_rows(
            self.model, self.tokenizer, drawn, max_new_tokens, self._size, context.max_length
        )

    def moments(self, factors: dict[str, Factors], projected: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Module -> mean of x x' over the tokens of the refusals, or of A x (A x)' if `projected`."""
        return self.moments_of(self.model, self.rows, factors, projected)

    def moments_of(
        self, model: Any, rows: Sequence[Encoded], factors: dict[str, Factors], projected: bool
    ) -> Iterator[tuple[str, Tensor]]:
        """The same of any model and rows; of a PEFT model, with its adapter."""
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        modules = {name: inner.get_submodule(name) for name in factors}
        through = {name: one.a for name, one in factors.items()} if projected else None
        return input_moments(
            model, modules, rows, self._size, pad_id_of(self.tokenizer), through,
            lambda count: self._tick("reading inputs", count, len(modules)),
        )  # fmt: skip
