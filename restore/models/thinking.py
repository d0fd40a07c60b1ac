"""Answers of models that think first: what is said after the block of thinking is the answer."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from typing import Any

from ...errors import InputError
from .chat import THINKING, read_chat, template_text

__all__ = [
    *("Answer", "Thinking", "answer_of", "decoded", "end_thinking_at", "ending_thinking", "marks_of"),
    *("split_thinking", "spoken", "thinking_of"),
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


class Answer(str):
    """What a model says after its thinking, or without any: marks in it are part of what it says."""

    __slots__ = ()


@dataclass(frozen=True)
class Thinking:
    """How a model's blocks of thinking begin and end, and where."""

    begin: str
    end: str
    required: bool = False
    """Whether every answer has one, so that what never reaches `end` is unfinished thinking."""
    opening: str | None = None
    """What opens an answer in the model's template; where it is not known, the whole prompt is looked at for marks."""
    lead: str = ""
    """What the template writes between that and a finished answer, such as an empty block."""

    def opened_by(self, prompt: str) -> bool:
        """Whether a rendered prompt ends inside a block; what user and system say of the marks does not count."""
        block = prompt[self._opened_at(prompt) :]
        return self.required or block.rfind(self.begin) > block.rfind(self.end)

    def _opened_at(self, prompt: str) -> int:
        """Where that begins which is the model's: a block that the template opens, and what is put into its mouth."""
        if self.opening is None:
            return 0
        head, sign = self.opening.partition(self.begin)[0].strip(), self.opening.strip()
        at = prompt.rfind(head or sign) if sign else -1
        if at < 0:
            return len(prompt)
        rest = prompt[at + len(head) :]
        return len(prompt) - len(rest.lstrip())

    def closed(self, prompt: str) -> str:
        """A rendered prompt after which an answer can stand: a block that it begins, or that is required, is empty.

        So is one that the template writes before finished answers. What an answer is begun with comes behind it.
        """
        at = self._opened_at(prompt)
        block = prompt[at:]
        if not self.opened_by(prompt):
            whole = self.end in block or block.startswith(self.lead)
            return prompt if whole else f"{prompt[:at]}{self.lead}{block}"
        front, begin, inside = block.rpartition(self.begin)
        if not begin or self.end in inside:  # required, and how it begins is not known
            return f"{prompt}{self.end}\n\n"
        said = inside.lstrip()
        gap = inside[: len(inside) - len(said)]
        gap += "\n" if gap.endswith("\n") else "\n\n"
        return f"{prompt[:at]}{front}{begin}{gap}{self.end}\n\n{self.answer_lead}{said}"

    @property
    def answer_lead(self) -> str:
        """What the template writes between a block and the answer."""
        front, begin, rest = self.lead.partition(self.begin)
        return front + rest.rpartition(self.end)[2].lstrip() if begin else front

    def parts(self, prompt: str, response: str) -> tuple[str, str | None]:
        """A response's own block, as the model would go on from a prompt with it, and its answer.

        The block is "" where there is none, the answer None where the block has not ended. Where the prompt begins no
        block, an end without a beginning is one only at the start of a line; elsewhere the answer speaks of it.
        """
        opened = self.opened_by(prompt)
        for begin, end in sorted(((self.begin, self.end), *THINKING), key=lambda pair: pair[1] not in response):
            alone = opened or re.search(f"^{re.escape(end)}", response, re.MULTILINE) is not None
            _, answer = split_thinking(response, ((begin, end),), alone)
            if answer != response:
                block = response if answer is None else response.removesuffix(answer)
                block = block.replace(begin, self.begin).replace(end, self.end)
                inside = block.lstrip().removeprefix(self.begin)
                if opened:
                    return inside.lstrip(), answer
                return (block if inside != block.lstrip() else f"{self.begin}\n{inside}"), answer
        return "", response

    @property
    def marks(self) -> tuple[str, str]:
        """Those that `whole` writes."""
        return (self.begin, self.end) if (self.begin, self.end) in THINKING else THINKING[0]

    def whole(self, prompt: str, continuation: str) -> str:
        """The block and the answer, the block begun and ended by the marks that `split_thinking` knows best.

        Args:
            prompt: as rendered for the model.
            continuation: what the model wrote, its marks included.
        """
        if self.opened_by(prompt) and not continuation.lstrip().startswith(self.begin):
            continuation = f"{self.begin}\n{continuation.lstrip()}"
        begin, end = self.marks
        return continuation.replace(self.begin, begin, 1).replace(self.end, end)


def thinking_of(tokenizer: Any) -> Thinking | None:
    """How a model thinks, by `ending_thinking` or else by its chat template; None where it does not.

    Raises:
        InputError: the chat template is unusable.
    """
    end = _end.get()
    if end is not None:
        begin = next((begin for begin, known in THINKING if known == end), THINKING[0][0])
        opening = read_chat(tokenizer).opening if tokenizer.chat_template else None
        return Thinking(begin, end, required=True, opening=opening)
    source = template_text(tokenizer)
    if not any(mark in source for pair in THINKING for mark in pair):
        return None
    chat = read_chat(tokenizer)
    lead = chat.lead if chat.lead.strip() else ""
    return Thinking(*chat.thinking, opening=chat.opening, lead=lead) if chat.thinking else None


def split_thinking(
    text: str, marks: Sequence[tuple[str, str]] = THINKING, alone: bool = True
) -> tuple[str, str | None]:
    """Parts a response into its thinking ("" where there is none) and its answer.

    Thinking begins at the text's start, and goes up to the end of its block: the first that is not of a block quoted
    inside, or the last where none is. What follows is the answer, whatever it says of such marks; nothing of it is
    left out. Blocks and ends that follow one another are all thinking.

    Args:
        text: a response, or an `Answer`, which has no thinking.
        marks: how blocks begin and end.
        alone: whether a block may have its end alone, as where a prompt opened it.

    Returns:
        (thinking, answer). The answer is None where the thinking has not ended.
    """
    for begin, end in () if isinstance(text, Answer) else marks:
        starts = text.lstrip().startswith(begin)
        if not starts and not (alone and end in text and begin not in text.partition(end)[0]):
            continue
        if end not in text:
            return text.strip().removeprefix(begin).strip(), None
        at = _end_of_block(text, begin, end)
        thinking, answer = text[: at - len(end)].strip().removeprefix(begin).strip(), text[at:].lstrip()
        while answer.startswith(end):
            answer = answer.removeprefix(end).lstrip()
        if answer.startswith(begin):
            more, rest = split_thinking(answer, ((begin, end),))
            return f"{thinking}\n{more}".strip(), rest
        return thinking, answer
    return "", text


def _end_of_block(text: str, begin: str, end: str) -> int:
    """Where the block at a text's start is over, its end included."""
    depth = 0
    for mark in re.finditer(f"{re.escape(begin)}|{re.escape(end)}", text):
        depth += 1 if mark.group() == begin else -1
        if depth <= 0:
            return mark.end()
    return text.rindex(end) + len(end)


def spoken(text: str) -> str:
    """What a model says whose template knows of no thinking: there is some only where the text begins with a block."""
    return text if text.lstrip().startswith(tuple(begin for begin, _ in THINKING)) else Answer(text)


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
