"""Whether rows suit a model: ids within its vocabulary, lengths within its positions."""

from collections.abc import Iterable, Sequence
from typing import Any

from ...errors import InputError, several

__all__ = ["check_fit"]


def check_fit(model: Any, rows: Iterable[Sequence[int]], name: str, room: int = 0, longest: int | None = None) -> None:
    """Refuses rows that would index past the model's tables, before a forward pass does.

    Args:
        model: a transformers or PEFT model.
        rows: token ids of each row.
        name: names the set in errors.
        room: tokens that will be generated after each row.
        longest: max_length, where it has not been checked yet.

    Raises:
        InputError: an id that the model has no embedding for, or all rows longer than its positions or `longest`.
    """
    config = model.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    faults = []
    for number, ids in enumerate(rows):
        if max(ids) >= config.vocab_size:
            raise InputError(
                f"Row {number} of the {name} set has token id {max(ids)}, but the model's vocabulary has "
                f"{config.vocab_size} entries. Give the tokenizer that belongs to the model."
            )
        if longest and len(ids) > longest:
            faults.append(
                f"Row {number} of the {name} set has {len(ids)} tokens, more than max_length={longest}. "
                "Raise max_length or drop the row."
            )
        elif positions and len(ids) + room > positions:
            after = f" and is answered with up to {room}" if room else ""
            faults.append(
                f"Row {number} of the {name} set has {len(ids)} tokens{after}, but the model has {positions} "
                "positions. Drop the row."
            )
    if faults:
        raise InputError(several("rows are too long", faults))
