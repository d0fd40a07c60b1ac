"""Where a suffix stands: behind a request, inside the chat template, in tokens that a text brings about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ...errors import InputError
from ..losses.encoding import Prompt, asked, prompt_ids, question
from ..restoration.forget import AFFIRMATIVE, encode_forget

__all__ = ["Slot", "Suffix", "slot_for", "suffix_tokens"]

Suffix = tuple[int, ...]
"""Token ids of a suffix, L of them."""
TRIED = 100
"""Tokens that are repeated to find the place of a suffix."""


@dataclass(frozen=True)
class Slot:
    """One request with room for L tokens behind it, and the answer that an attack aims at.

    The prompt is before + suffix + after, with the chat template's tokens in `before` and `after`.
    """

    tokenizer: PreTrainedTokenizerBase
    row: Mapping[str, Any]
    """`prompt`, perhaps `before` (turns before it) and `target` (how a complying answer begins)."""
    before: tuple[int, ...]
    after: tuple[int, ...]
    target: tuple[int, ...]
    """The tokens x*, H of them, that are to follow the prompt."""
    start: Suffix
    """Where every search begins: L times the same token."""

    def text(self, suffix: Suffix) -> str:
        """The user's message with a suffix: what an attacker sends."""
        return _joined(self.tokenizer, str(self.row["prompt"]), suffix)

    def prompt(self, suffix: Suffix) -> Prompt:
        """The same as `encode` and `prompt_ids` take it, with the turns before."""
        return asked({**self.row, "prompt": self.text(suffix)})

    def admits(self, suffix: Suffix) -> bool:
        """Whether the suffix survives as text: decoded, joined, rendered and encoded again it is these very tokens."""
        return tuple(prompt_ids(self.tokenizer, self.prompt(suffix))) == self.before + suffix + self.after

    def whole(self, suffix: Suffix) -> tuple[int, ...]:
        """Prompt and target."""
        return self.before + suffix + self.after + self.target


def slot_for(
    tokenizer: PreTrainedTokenizerBase,
    row: Mapping[str, Any],
    tokens: Sequence[int],
    length: int,
    target_tokens: int | None = None,
) -> Slot:
    """Finds where a suffix of a request lies in the rendered prompt.

    Some tokens, `!` before all others, are repeated as a suffix. Most of them lie in the same place, and what is around
    it does not depend on them: that place is taken, and the first token that lies there for the start.

    Args:
        tokenizer: with a chat template.
        row: as `Slot.row`; without a target the opening is "Sure, here is".
        tokens: of `suffix_tokens`.
        length: L, tokens of the suffix.
        target_tokens: H at most; None is the whole target.

    Raises:
        InputError: no two of the tokens tried can be repeated so often, or the target cannot be encoded.
    """
    places: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for token in _tried(tokenizer, tokens):
        place = _place(tokenizer, row, (token,) * length)
        if place is not None:
            places.setdefault(place, []).append(token)
    best = max(places, key=lambda place: len(places[place]), default=None)
    if best is None or len(places[best]) < 2:
        raise InputError(
            f"Hardly a token of '{tokenizer.name_or_path}' can be repeated {length} times behind the request "
            f"'{str(row['prompt'])[:60]}': as text they become others. Give a smaller length."
        )
    start = (places[best][0],) * length
    return Slot(tokenizer, row, *best, _target(tokenizer, row, start)[:target_tokens], start)


def suffix_tokens(tokenizer: PreTrainedTokenizerBase, rows: int) -> tuple[int, ...]:
    """The tokens that a suffix may be made of: printable ASCII text, no special or added token.

    Args:
        tokenizer: any.
        rows: of the model's embedding table; ids beyond it are left out.
    """
    added = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    ids = [one for one in range(min(rows, len(tokenizer))) if one not in added]
    return tuple(one for one in ids if _is_plain(_decoded(tokenizer, (one,))))


def _is_plain(text: str) -> bool:
    return bool(text.strip()) and text.isascii() and text.isprintable()


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _joined(tokenizer: PreTrainedTokenizerBase, prompt: str, suffix: Suffix) -> str:
    """One space between them, whether or not the suffix's first token brings it."""
    return f"{prompt} {_decoded(tokenizer, suffix).removeprefix(' ')}"


def _tried(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[int]:
    marks = [one for one in tokens if _decoded(tokenizer, (one,)).strip() == "!"]
    return [*dict.fromkeys((*marks, *tokens[:: max(1, len(tokens) // TRIED)]))]


def _place(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], suffix: Suffix
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """What is before and behind a suffix of one repeated token; None where it does not become these tokens."""
    text = _joined(tokenizer, str(row["prompt"]), suffix)
    ids = tuple(prompt_ids(tokenizer, asked({**row, "prompt": text})))
    for begin in range(len(ids) - len(suffix), -1, -1):
        if ids[begin : begin + len(suffix)] == suffix:
            return ids[:begin], ids[begin + len(suffix) :]
    return None


def _target(tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], start: Suffix) -> tuple[int, ...]:
    """The target as it follows the prompt, without the end of the turn: it is the beginning of an answer."""
    given = {**question(row), "prompt": _joined(tokenizer, str(row["prompt"]), start), "ending": "open"}
    (encoded,) = encode_forget(tokenizer, [{**given, "response": row.get("target") or AFFIRMATIVE}])
    return encoded.ids[encoded.start :]
