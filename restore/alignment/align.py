"""Safety alignment by full supervised fine-tuning; the result is an ordinary model folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..config.training import TrainingConfig
from ..finetuning.whole import train_whole
from ..method import Built, Tick
from ..models.checkpoint import save_full
from ..models.loading import load_base, load_tokenizer
from .contrast import CONTRAST
from .rows import kept_answers, refusals

__all__ = ["Alignment", "Answers", "align"]

Answers = Literal["own", "given"]


@dataclass(frozen=True)
class Alignment:
    """How a base is aligned."""

    training: TrainingConfig
    deep: bool = True
    """Whether each refusal is learnt a second time behind the opening of a compliant answer."""
    questions: bool = True
    """Whether half of the refusals answer the prompt put as a question."""
    contrast: bool = True
    """Whether the base's answers to innocent requests that sound harmful (`CONTRAST`) are kept too."""
    answers: Answers = "own"
    """Which answers to benign prompts are kept: the base's own, or those of the rows."""
    answer_tokens: int = 48
    """The longest of the base's own answers."""
    generate_batch: int = 16
    """Prompts in a generation."""
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None
    max_length: int = 1024


def align(
    base: str,
    harmful: Sequence[Mapping[str, Any]],
    benign: Sequence[Mapping[str, Any]],
    how: Alignment,
    output: Path,
    tick: Tick = lambda what, done, total: None,
) -> Built:
    """Trains all parameters of a base on refusals and on answers to keep; saves model and tokenizer.

    Args:
        base: folder of the model to align.
        harmful: rows with `prompt` and, optionally, their own `refusal`.
        benign: rows with `prompt` (and `response`, where those are to be learnt).
        how: settings.
        output: an existing empty folder.
        tick: progress.

    Raises:
        InputError: model or rows are unusable, or training diverges.
    """
    tokenizer = load_tokenizer(base)
    model: Any = load_base(base, None, how.dtype, how.device)
    safety = refusals(tokenizer, harmful, how.deep, how.max_length, how.questions)

    def kept(rows: Sequence[Mapping[str, Any]], own: bool) -> list[Any]:
        size, longest = how.generate_batch, how.answer_tokens
        return kept_answers(model, tokenizer, rows, own, longest, size, how.max_length, tick)

    answered = kept(benign, how.answers == "own")
    contrast = kept([{"prompt": text} for text in CONTRAST], own=True) if how.contrast else []
    losses = train_whole(model, tokenizer, [*safety, *answered, *contrast], how.training, how.seed, tick)
    save_full(model, tokenizer, output)
    details = {
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "rows": {"refusals": len(harmful), "deep_refusals": len(safety) - len(harmful), "benign": len(answered)}
        | {"contrast": len(contrast)},
    }
    return Built(safety_examples=len({row["prompt"] for row in harmful}), details=details)
