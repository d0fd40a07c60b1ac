"""Rows of text to token ids and labels: the loss is taken on the response alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ...errors import InputError

__all__ = ["IGNORED", "Batch", "Encoded", "batches", "encode", "encode_all", "prompt_ids"]

IGNORED = -100
"""The label of a token that carries no loss."""

PADDING = 8
"""Widths of batches are multiples of this, which tensor cores want."""

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Encoded:
    """One row: token ids and, from `start` on, the response tokens that carry loss."""

    ids: tuple[int, ...]
    start: int

    @property
    def targets(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.ids) - self.start


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], open_turn: bool) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=open_turn)
    return list(tokenizer(str(text), add_special_tokens=False)["input_ids"])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
    """Ids of the chat-templated prompt, up to where the assistant's answer begins (special tokens once)."""
    return _render(tokenizer, [{"role": "user", "content": prompt}], open_turn=True)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, max_length: int = 1024) -> Encoded:
    """Encodes one exchange with the tokenizer's own chat template, end-of-turn tokens included.

    Raises:
        InputError: the tokenizer has no chat template, its rendering of the exchange does not begin with its rendering
            of the prompt, the response has no token but special ones, or the row is longer than `max_length` tokens.
    """
    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Set tokenizer.chat_template first."
        )
    head = prompt_ids(tokenizer, prompt)
    turn = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    ids = _render(tokenizer, turn, open_turn=False)
    if ids[: len(head)] != head:
        raise InputError(
            f"The chat template of '{tokenizer.name_or_path}' renders the prompt differently when an answer follows "
            f"(row '{prompt[:60]}'), so the loss cannot be limited to the response. Use a template that only appends."
        )
    if not response.strip() or not set(ids[len(head) :]) - set(tokenizer.all_special_ids):
        raise InputError(
            f"Row '{prompt[:60]}' has an empty response, or one of special tokens alone: there is nothing to take a "
            "loss on. Remove the row."
        )
    if len(ids) > max_length:
        raise InputError(
            f"Row '{prompt[:60]}' has {len(ids)} tokens, more than max_length={max_length}. "
            "Raise max_length or drop the row."
        )
    return Encoded(tuple(ids), len(head))


def encode_all(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], what: str, max_length: int = 1024
) -> list[Encoded]:
    """Encodes rows with the columns `prompt` and `response`; `what` names the set in errors.

    Raises:
        InputError: the set is empty, a column is missing, or a row cannot be encoded.
    """
    if not rows:
        raise InputError(f"The {what} set is empty. Give it at least one row with the columns prompt and response.")
    for number, row in enumerate(rows):
        missing = {"prompt", "response"} - set(row)
        if missing:
            raise InputError(
                f"Row {number} of the {what} set lacks {sorted(missing)}; it has {sorted(row)}. "
                "Rename the columns to prompt and response."
            )
    return [encode(tokenizer, row["prompt"], row["response"], max_length) for row in rows]


def _pad(rows: Sequence[Encoded], pad_id: int, device: torch.device, multiple: int = 1) -> Batch:
    width = -(-max(len(row.ids) for row in rows) // multiple) * multiple
    ids = torch.full((len(rows), width), pad_id)
    labels = torch.full((len(rows), width), IGNORED)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        labels[i, row.start : len(row.ids)] = torch.tensor(row.ids[row.start :])
        mask[i, : len(row.ids)] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}


def pad_id_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with (masked out everywhere): the pad token's, else the end-of-sequence token's."""
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return int(found) if isinstance(found, int) else 0


def batches(rows: Sequence[Encoded], size: int, pad_id: int, device: torch.device | str = "cpu") -> Iterator[Batch]:
    """Right-padded batches of at most `size` rows, grouped by length so that little is padded beyond multiples of 8.

    Each batch has input_ids, attention_mask and labels (`IGNORED` outside the response), all [rows, width].
    """
    ordered = sorted(rows, key=lambda row: len(row.ids))
    for begin in range(0, len(ordered), size):
        yield _pad(ordered[begin : begin + size], pad_id, torch.device(device), PADDING)
