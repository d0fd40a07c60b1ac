"""What is wrong with a prompt, told before anything is generated from it."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import InputError
from ...restore.models.chat import read_chat

__all__ = ["check_chat_template", "check_prompt"]


def check_chat_template(tokenizer: Any) -> None:
    """Evaluation puts every prompt through the tokenizer's chat template.

    Raises:
        InputError: the tokenizer has none, or one that opens no answer.
    """
    if not tokenizer.chat_template:
        raise InputError(f"The tokenizer of '{tokenizer.name_or_path}' has no chat template, which evaluation needs.")
    read_chat(tokenizer)


def check_prompt(
    ids: Sequence[int], doc: Mapping[str, Any], room: int, tokenizer: Any, max_length: int, table: int | None = None
) -> None:
    """Checks a prompt of a generation.

    Args:
        ids: its tokens.
        doc: the document that it was made from.
        room: tokens that the answer may take.
        tokenizer: the model's.
        max_length: tokens that the model can take in all.
        table: rows of its embedding table, where they are known.

    Raises:
        InputError: a token outside the table, two beginning-of-sequence tokens, a prefilled prompt that does not end in
            the target's tokens, or a prompt that leaves no room for the answer.
    """
    if table is not None and max(ids, default=0) >= table:
        token = max(ids)
        raise InputError(
            f"The prompt '{str(doc.get('prompt', ''))[:60]}' has the token {tokenizer.convert_ids_to_tokens(token)!r} "
            f"(id {token}), but the model's embedding table has {table} rows. Drop the row."
        )
    bos = tokenizer.bos_token_id
    if bos is not None and list(ids[:2]) == [bos, bos]:
        raise InputError(
            f"The prompt begins with two {tokenizer.bos_token} tokens (ids {ids[:6]}). Mend the chat template."
        )
    forced = list(doc.get("prefix_ids") or [])
    if forced and list(ids[-len(forced) :]) != forced:
        raise InputError(
            f"The prefilled prompt ends in token ids {ids[-len(forced) :]} instead of the target's {forced} "
            f"('{doc.get('prefix')}'): the tokenizer merges the prefix with the template. Choose another k."
        )
    if len(ids) + room > max_length:
        raise InputError(
            f"A prompt of {len(ids)} tokens and max_gen_toks={room} exceed the model's {max_length} positions. "
            f"Lower max_gen_toks or drop the row '{str(doc.get('prompt', ''))[:60]}'."
        )
