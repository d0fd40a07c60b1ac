"""Fitting a tokenizer to its model: ids inside the embedding table, turns that end, and no look at the clock."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from .chat import read_chat, reads_clock, template_text, with_fixed_clock
from .files import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["fitted", "outside", "pad_inside", "rows_of", "table_size"]


def fitted(tokenizer: "PreTrainedTokenizerBase", rows: int | None) -> "PreTrainedTokenizerBase":
    """The tokenizer as generation and losses may use it; a copy where something had to be changed.

    The template is told the date of `chat.writing_date`; the token that ends its turns is special, so that answers are
    decoded without it; a padding token outside the embedding table is replaced (padding is masked).

    Args:
        tokenizer: any; with a chat template it must open answers (`chat.read_chat`).
        rows: of the embedding table; None where it is not known.

    Raises:
        InputError: the chat template is unusable, a token that prompts are made of lies outside the table, or no
            special token lies inside.
    """
    copied: Any = copy.deepcopy(tokenizer)
    if tokenizer.chat_template:
        with_fixed_clock(copied)
        end = read_chat(copied).end
        if end is not None and end not in copied.all_special_ids:
            token = copied.convert_ids_to_tokens(end)
            copied.add_special_tokens({"extra_special_tokens": [token]}, replace_extra_special_tokens=False)
    if rows is not None:
        pad_inside(copied, rows, template_text(copied) + (read_chat(copied).text if copied.chat_template else ""))
    changed = reads_clock(tokenizer) or copied.all_special_ids != tokenizer.all_special_ids
    return copied if changed or copied.pad_token_id != tokenizer.pad_token_id else tokenizer


def pad_inside(tokenizer: Any, rows: int, text: str) -> None:
    """Lets a tokenizer pad with another special token where its own lies outside an embedding table of so many rows.

    Args:
        tokenizer: changed in place.
        rows: of the table.
        text: what stands in prompts whatever is asked.

    Raises:
        InputError: another token that prompts are made of lies outside, or no special token lies inside.
    """
    strays = outside(tokenizer, rows)
    used = [token for token in strays if token in (tokenizer.bos_token, tokenizer.eos_token) or token in text]
    if used:
        raise InputError(
            f"The tokenizer '{tokenizer.name_or_path}' has {len(strays)} tokens beyond the {rows} rows of the model's "
            f"embedding table, and prompts need {used[0]!r} (id {strays[used[0]]}). Call "
            "model.resize_token_embeddings(len(tokenizer)), train and save the model, or give the tokenizer that "
            "belongs to it."
        )
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id < rows:
        return
    special = [number for number in (tokenizer.eos_token_id, *sorted(tokenizer.all_special_ids)) if number is not None]
    inside = [number for number in special if number < rows]
    if not inside:
        raise InputError(
            f"The tokenizer '{tokenizer.name_or_path}' has no special token inside the {rows} rows of the model's "
            "embedding table. Give the tokenizer that belongs to the model."
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(inside[0])


def outside(tokenizer: "PreTrainedTokenizerBase", rows: int) -> dict[str, int]:
    """Tokens whose ids an embedding table of so many rows does not have, the padding token aside, with their ids."""
    if len(tokenizer) <= rows and max(tokenizer.all_special_ids, default=0) < rows:
        return {}
    pad = tokenizer.pad_token_id
    return {token: number for token, number in tokenizer.get_vocab().items() if number >= rows and number != pad}


def table_size(folder: Path) -> int | None:
    """Rows of the embedding table of the model in a folder, by its config; None where it does not say."""
    if not (folder / "config.json").is_file():
        return None
    settings = read_json(folder / "config.json")
    for part in (settings, settings.get("text_config")) if isinstance(settings, dict) else ():
        if isinstance(part, dict) and isinstance(part.get("vocab_size"), int):
            return int(part["vocab_size"])
    return None


def rows_of(model: Any) -> int:
    """Rows of a loaded model's embedding table."""
    return int(model.get_input_embeddings().weight.shape[0])
