"""The words that a judge answers with, as tokens, and their probabilities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy.special import logsumexp, softmax

from ..errors import InputError

__all__ = ["AnswerWords", "Reading"]


class Reading(NamedTuple):
    """An answer as it is read."""

    tokens: list[int]
    """Its ids, without the end of text and what is behind it."""
    text: str
    """Without special tokens."""
    scores: Sequence[Sequence[float]]
    """Of each step, the end of text included: the logits of the words asked for."""


class AnswerWords:
    """Words of which an answer holds one, each known by the tokens that it can begin with."""

    def __init__(self, tokenizer: Any, words: Sequence[str], exact: bool = False) -> None:
        """Looks the words up.

        Args:
            tokenizer: of the judge.
            words: as they are written.
            exact: only the token that is the word itself, as published scores have it; else its spelling with and
                without a space, as it stands and with a capital, by the first token of each.

        Raises:
            InputError: some word has no token that tells it from the others.
        """
        found = [_exact(tokenizer, word) if exact else _spellings(tokenizer, word) for word in words]
        every = [token for tokens in found for token in tokens]
        self._groups = [[token for token in tokens if every.count(token) == 1] for tokens in found]
        if missing := [word for word, tokens in zip(words, self._groups, strict=True) if not tokens]:
            raise InputError(
                f"The tokenizer has no token of its own for the answer {', '.join(map(repr, missing))} among "
                f"{', '.join(map(repr, words))}. Is this the right model?"
            )

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens, word by word."""
        return tuple(token for tokens in self._groups for token in tokens)

    def shares(self, logits: Sequence[float]) -> list[float]:
        """Probability of each word, renormalised over the words.

        Args:
            logits: of `ids`.
        """
        at = iter(logits)
        sums = [logsumexp([next(at) for _ in tokens]) for tokens in self._groups]
        return [float(share) for share in softmax(sums)]

    def steps(self, tokens: Sequence[int]) -> list[int]:
        """Places in an answer where one of the words begins."""
        return [step for step, token in enumerate(tokens) if token in self.ids]

    def share_at(self, reading: Reading, which: int, word: int) -> float | None:
        """Probability of a word at the first (`which` 0) or last (-1) step that begins a word; None without one."""
        steps = self.steps(reading.tokens)
        return self.shares(reading.scores[steps[which]])[word] if steps else None


def _exact(tokenizer: Any, word: str) -> list[int]:
    token = tokenizer.get_vocab().get(word)
    return [] if token is None else [token]


def _spellings(tokenizer: Any, word: str) -> list[int]:
    found: dict[int, None] = {}
    vocabulary = tokenizer.get_vocab()
    for spelling in (word, word[0].upper() + word[1:]):
        for text in (spelling, f" {spelling}"):
            found |= dict.fromkeys(tokenizer.encode(text, add_special_tokens=False)[:1])
        pieces = (
            vocabulary.get(mark + spelling) for mark in ("", "\u2581", "\u0120")
        )  # of SentencePiece, of byte-level BPE
        found |= dict.fromkeys(piece for piece in pieces if piece is not None)
    return [token for token in found if token != tokenizer.unk_token_id and tokenizer.decode([token]).strip()]
