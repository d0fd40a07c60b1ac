"""Rows of text to token ids and labels: the loss is taken on the response alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ...errors import InputError, several
from ..models.thinking import thinking_of

__all__ = [
    "IGNORED",
    "Batch",
    "Encoded",
    "Prompt",
    "Turn",
    "asked",
    "batches",
    "encode",
    "encode_all",
    "encode_sets",
    "prompt_ids",
    "question",
]

IGNORED = -100
"""The label of a token that carries no loss."""

_PROBE = "safebasin probe answer"
PADDING = 8
"""Widths of batches are multiples of this, which tensor cores want."""

Batch = dict[str, torch.Tensor]
Turn = Mapping[str, str]
"""One turn of a conversation: its `role` (system, user or assistant) and its `content`."""
Prompt = str | Sequence[Turn]
"""A user's text, or the turns up to and with it."""


@dataclass(frozen=True)
class Encoded:
    """One row: token ids and, from `start` on, the response tokens that carry loss."""

    ids: tuple[int, ...]
    start: int

    @property
    def targets(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.ids) - self.start


def question(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked in a row: its `prompt`, and the turns `before` it where there are any."""
    return {name: row[name] for name in ("prompt", "before") if row.get(name)}


def asked(row: Mapping[str, Any]) -> Prompt:
    """The prompt of a row as `encode` and `prompt_ids` take it."""
    return [*row["before"], {"role": "user", "content": row["prompt"]}] if row.get("before") else str(row["prompt"])


def _turns(prompt: Prompt) -> list[Turn]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], open_turn: bool) -> str:
    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Set tokenizer.chat_template first."
        )
    conversation = [dict(turn) for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=open_turn))
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise InputError(
            f"The chat template of '{tokenizer.name_or_path}' refuses row '{_shown(turns)}' (turns: {roles}): {error}."
        ) from error


def _answered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], head: str, response: str) -> str:
    """The rendered exchange.

    Many templates of models that think leave blocks out, or cut answers that speak of the marks. So where the template
    does not render the response as it is behind the head, it is put together: the head, the response's own block or an
    empty one where the template writes that, the answer, and what the template ends answers with.
    """
    thinking = thinking_of(tokenizer)
    block, answer = ("", response) if thinking is None else thinking.parts(head, response)
    if thinking is None or not (block or thinking.opened_by(head)):
        whole = _render(tokenizer, [*turns, {"role": "assistant", "content": response}], open_turn=False)
        if thinking is None or (whole.startswith(head) and response.strip() in whole[len(head) :]):
            return whole
    if not answer or not answer.strip():
        return head + block
    ended = _render(tokenizer, [*turns, {"role": "assistant", "content": _PROBE}], open_turn=False)
    begun = f"{head}{block}{thinking.answer_lead}" if block else thinking.closed(head)
    return begun + answer + ended.rpartition(_PROBE)[2]


def _opening(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn]) -> str:
    """What stands before the assistant's answer."""
    text = _render(tokenizer, turns, open_turn=True)
    lost = [turn["role"] for turn in turns[:-1] if turn["role"] != "assistant" and turn["content"].strip() not in text]
    if lost:
        raise InputError(
            f"The chat template of '{tokenizer.name_or_path}' leaves out what the {lost[0]} says before row "
            f"'{_shown(turns)}'. Use a template that shows every turn, or remove the turn."
        )
    return text


def _shown(turns: Sequence[Turn]) -> str:
    return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), "")[:60]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Ids of the chat-templated prompt, up to where the assistant's answer begins (special tokens once).

    Raises:
        InputError: the tokenizer has no chat template, or it refuses the prompt or leaves out one of its turns.
    """
    return _ids(tokenizer, _opening(tokenizer, _turns(prompt)))


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, max_length: int = 1024) -> Encoded:
    """Encodes one exchange with the tokenizer's own chat template, end-of-turn tokens included.

    Prompt and response are cut where the rendered prompt's text ends. The ids of the prompt are those of `prompt_ids`,
    from which a model answers, also where the tokenizer would join its last characters with the response's first.

    Args:
        tokenizer: with a chat template.
        prompt: a text, or the turns up to it.
        response: what carries the loss.
        max_length: of the whole row, in tokens.

    Raises:
        InputError: the tokenizer has no chat template or its template refuses the row, its rendering of the exchange
            does not begin with its rendering of the prompt, the response has no token but special ones, or the row is
            longer than `max_length` tokens.
    """
    turns = _turns(prompt)
    head = _opening(tokenizer, turns)
    whole = _answered(tokenizer, turns, head, response)
    begun = _ids(tokenizer, head)
    ids = _continued(tokenizer, head, begun, whole)
    if ids is None:
        raise InputError(
            f"The chat template of '{tokenizer.name_or_path}' renders the prompt differently when an answer follows "
            f"(row '{_shown(turns)}'), so the loss cannot be limited to the response. Use a template that only appends."
        )
    if not response.strip() or not set(ids[len(begun) :]) - set(tokenizer.all_special_ids):
        raise InputError(
            f"Row '{_shown(turns)}' has an empty response, or one of special tokens alone: there is nothing to "
            "take a loss on. Remove the row."
        )
    if len(ids) > max_length:
        raise InputError(
            f"Row '{_shown(turns)}' has {len(ids)} tokens, more than max_length={max_length}. "
            "Raise max_length or drop the row."
        )
    return Encoded(tuple(ids), len(begun))


def _continued(tokenizer: PreTrainedTokenizerBase, head: str, begun: list[int], whole: str) -> list[int] | None:
    """The ids of a text that begin with those of its beginning; None where it begins otherwise.

    Where tokens span the cut, what follows it is encoded by itself. Some tokenizers put a space before any text, so it
    is tried behind characters too, whose ids are taken off; what decodes to the same text is right.
    """
    ids = _ids(tokenizer, whole)
    if ids[: len(begun)] == begun:
        return ids
    if not whole.startswith(head):
        return None
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    for before in ("", "\n", ".", "a"):
        skipped = _ids(tokenizer, before)
        rest = _ids(tokenizer, before + whole[len(head) :])
        apart = [*begun, *rest[len(skipped) :]]
        same = tokenizer.decode(apart, clean_up_tokenization_spaces=False) == text
        if rest[: len(skipped)] == skipped and same:
            return apart
    return None


def encode_all(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], what: str, max_length: int = 1024
) -> list[Encoded]:
    """Encodes rows with the columns `prompt`, `response` and perhaps `before`; `what` names the set in errors.

    Raises:
        InputError: the set is empty; or all of its rows that lack a column or cannot be encoded.
    """
    return encode_sets(tokenizer, {what: rows}, max_length)[what]


def encode_sets(
    tokenizer: PreTrainedTokenizerBase, sets: Mapping[str, Sequence[Mapping[str, Any]]], max_length: int = 1024
) -> dict[str, list[Encoded]]:
    """As `encode_all`, for several sets by name: what is wrong with any of them is said at once."""
    faults: list[str] = []
    made = {name: list(_encoded(tokenizer, rows, name, max_length, faults)) for name, rows in sets.items()}
    if faults:
        raise InputError(several("problems with rows", faults))
    return made


def _encoded(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    what: str,
    max_length: int,
    faults: list[str],
) -> Iterator[Encoded]:
    if not rows:
        faults.append(f"The {what} set is empty. Give it at least one row with the columns prompt and response.")
    for number, row in enumerate(rows):
        missing = {"prompt", "response"} - set(row)
        if missing:
            faults.append(
                f"Row {number} of the {what} set lacks {sorted(missing)}; it has {sorted(row)}. "
                "Rename the columns to prompt and response."
            )
            continue
        try:
            yield encode(tokenizer, asked(row), row["response"], max_length)
        except InputError as error:
            faults.append(f"{error}")


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
