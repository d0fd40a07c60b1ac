"""Fine-tuning of a finished checkpoint from its present weights, with copies of it on the way."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.training import TrainingConfig
from ..losses.encoding import encode_all
from ..method import Tick
from ..models.adapter_files import carry_tokenizer
from ..models.checkpoint import kind_of, save_full
from ..models.devices import Spread
from ..models.loading import load_adapter, load_base, load_tokenizer, load_tuned, new_adapter, save_adapter
from ..models.merge import merged
from .training import train

__all__ = ["tune_further"]


def tune_further(
    base: str,
    start: Path | None,
    rows: Sequence[Mapping[str, str]],
    folders: Mapping[int, Path],
    config: TrainingConfig,
    lora: Mapping[str, Any],
    seed: int,
    tick: Tick,
    dtype: str = "auto",
    device: str | Spread | None = None,
    max_length: int = 1024,
) -> None:
    """Trains a checkpoint on with a response-only loss, and saves it on the way.

    An adapter's own parameters go on training. The base, and a whole model, get a fresh adapter with B = 0; of a whole
    model whole models are saved, with that adapter merged.

    Args:
        base: folder of the base model.
        start: the checkpoint; None is the base as it is.
        rows: `prompt` and `response`.
        folders: optimizer steps, from 1 on -> where to save what the checkpoint is after them.
        config: of the optimizer; it must take as many steps.
        lora: rank, alpha, dropout and target_modules of a fresh adapter.
        seed: of a fresh adapter and of the order of rows.
        tick: progress.
        dtype: as for `load_base`.
        device: as for `load_base`.
        max_length: tokens of a row.

    Raises:
        InputError: checkpoint or rows are unusable, or the training diverges.
    """
    whole = start is not None and kind_of(start) == "full"
    if start is None or whole:
        place = str(start or base)
        model, tokenizer = new_adapter(load_base(place, None, dtype, device), lora, seed), load_tokenizer(place)
    else:
        model, tokenizer = load_tuned(base, start, None, dtype, device, trainable=True)
    encoded = encode_all(tokenizer, rows, "rows to fine-tune on again", max_length)
    if config.gradient_checkpointing:
        model.enable_input_require_grads()

    def progress(done: int, total: int, loss: float) -> None:
        tick("fine-tuning again", done, total)
        if done in folders:
            save_adapter(model, folders[done], base)
            if start is not None and not whole:
                carry_tokenizer(start, folders[done])

    train(model, tokenizer, encoded, config, seed, progress)
    for folder in folders.values() if whole else ():
        _merge(folder, load_base(str(start), None, dtype, device), tokenizer)


def _merge(folder: Path, model: Any, tokenizer: Any) -> None:
    """Puts a whole model in the place of an adapter on it."""
    whole = merged(load_adapter(model, folder))
    for path in folder.iterdir():
        path.unlink()
    save_full(whole, tokenizer, folder)
