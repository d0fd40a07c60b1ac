"""Answers of models that think first: what is said after the block of thinking is the answer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from .chat import THINKING, read_chat, template_text

__all__ = [
    *("Thinking", "answer_of", "decoded", "end_thinking_at", "ending_thinking", "marks_of", "split_thinking"),
    "thinking_of",
]

_end: ContextVar[str | None] = ContextVar("safebasin_think_end_token", default=None)


@contextmanager
def ending_thinking(end: str | None) -> Iterator[None]:
    """Inside, every answer is taken to begin with thinking that ends at this text; None leaves it to the template.

    Raises:
        InputError: the text is empty.
    """
    token = end_thinking_at(end)
    try:
        yield
    finally:
        _end.reset(token)


def end_thinking_at(end: str | None) -> Token[str | None]:
    """As `ending_thinking`, from here on."""
    if end is not None and not end.strip():
        raise InputError("think_end_token is empty. Give the text that ends the block of thinking, such as </think>.")
    return _end.set(end)


@dataclass(frozen=True)
class Thinking:
    """How a model's blocks of thinking begin and end."""

    begin: str
    end: str
    required: bool = False
    """Whether every answer has one, so that what never reaches `end` is unfinished thinking."""

    def opened_by(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a block."""
        return self.required or prompt.rfind(self.begin) > prompt.rfind(self.end)

    def closed(self, prompt: str) -> str:
        """A rendered prompt after which an answer can stand: a block that it begins, or that is required, is empty."""
        if not self.opened_by(prompt):
            return prompt
        if prompt.rfind(self.begin) <= prompt.rfind(self.end):  # required, and how it begins is not known
            return f"{prompt}{self.end}\n\n"
        gap = "\n" if prompt.endswith("\n") else "\n\n"
        return f"{prompt}{gap}{self.end}\n\n"

    def continued(self, prompt: str, response: str) -> str:
        """A rendered prompt and a response with its own block, as the model itself writes them."""
        text = response if (self.begin, self.end) in THINKING else response.replace(THINKING[0][1], self.end)
        return prompt + (text.lstrip().removeprefix(self.begin).lstrip() if self.opened_by(prompt) else text)

    def whole(self, prompt: str, continuation: str) -> str:
        """The block and the answer, the block begun and ended by the marks that `split_thinking` knows best.

        Args:
            prompt: as rendered for the model.
            continuation: what the model wrote, its marks included.
        """
        if self.opened_by(prompt) and not continuation.lstrip().startswith(self.begin):
            continuation = f"{self.begin}\n{continuation.lstrip()}"
        if (self.begin, self.end) in THINKING:
            return continuation
        begin, end = THINKING[0]
        return continuation.replace(self.begin, begin, 1).replace(self.end, end)


def thinking_of(tokenizer: Any) -> Thinking | None:
    """How a model thinks, by `ending_thinking` or else by its chat template; None where it does not.

    Raises:
        InputError: the chat template is unusable.
    """
    end = _end.get()
    if end is not None:
        return Thinking(next((begin for begin, known in THINKING if known == end), THINKING[0][0]), end, required=True)
    source = template_text(tokenizer)
    if not any(mark in source for pair in THINKING for mark in pair):
        return None
    found = read_chat(tokenizer).thinking
    return Thinking(*found) if found else None


def split_thinking(text: str, marks: Sequence[tuple[str, str]] = THINKING) -> tuple[str, str | None]:
    """Parts a response into its thinking ("" where there is none) and its answer.

    Thinking goes up to the last end of a block, as in lm-eval. It begins at the text's start; where a prompt opened it,
    the response may have its end alone.

    Returns:
        (thinking, answer). The answer is None where the thinking has not ended.
    """
    for begin, end in marks:
        starts = text.lstrip().startswith(begin)
        if end in text and (starts or begin not in text.partition(end)[0]):
            thinking, _, answer = text.rpartition(end)
            return thinking.strip().removeprefix(begin).strip(), answer.lstrip()
        if starts:
            return text.strip().removeprefix(begin).strip(), None
    return "", text


def answer_of(text: str) -> str:
    """What is said after the thinking; "" where it has not ended."""
    return split_thinking(text)[1] or ""


def marks_of(tokenizer: Any) -> set[int]:
    """The tokens that begin and end thinking; none of a model that does not think."""
    return _ids(tokenizer, thinking_of(tokenizer))


def _ids(tokenizer: Any, thinking: Thinking | None) -> set[int]:
    marks = () if thinking is None else (thinking.begin, thinking.end)
    return {one for mark in marks for one in tokenizer(mark, add_special_tokens=False)["input_ids"]}


def decoded(tokenizer: Any, ids: Sequence[int], thinking: Thinking | None) -> str:
    """The text of tokens, without special ones but those that begin and end thinking."""
    marks = _ids(tokenizer, thinking)
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special} if marks else set()
    if not marks & special:
        return str(tokenizer.decode(ids, skip_special_tokens=True))
    return str(tokenizer.decode([one for one in ids if one in marks or one not in special], skip_special_tokens=False))
