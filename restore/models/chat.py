"""What a tokenizer's chat template does: whether it opens an answer and ends a turn, thinks, or reads the clock."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Any

from ...errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

__all__ = [
    "DATE",
    "THINKING",
    "Chat",
    "begun",
    "ends_of",
    "first_added",
    "read_chat",
    "with_fixed_clock",
    "writing_date",
]

DATE = date(2024, 7, 26)
"""What a template that asks for today's date is told, unless a run's config says otherwise: the same in every run."""
THINKING = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|begin_of_thought|>", "<|end_of_thought|>"), ("◁think▷", "◁/think▷"),
)  # fmt: skip
"""How blocks of thinking begin and end, in the templates of models that think."""

_QUESTION, _ANSWER, _NEXT = "safebasin probe question", "safebasin probe answer", "safebasin probe continuation"
_date: ContextVar[date] = ContextVar("safebasin_date", default=DATE)


@contextmanager
def writing_date(told: date) -> "Iterator[None]":
    """Inside, templates that read the clock are told this date."""
    token = _date.set(told)
    try:
        yield
    finally:
        _date.reset(token)


def _told(form: str) -> str:
    return _date.get().strftime(form)


def template_text(tokenizer: Any) -> str:
    """The source of the chat template, of all of them where there are several; "" where there is none."""
    found = tokenizer.chat_template or ""
    return "\n".join(map(str, found.values())) if isinstance(found, Mapping) else str(found)


def reads_clock(tokenizer: Any) -> bool:
    """Whether the template asks what day it is."""
    return "strftime_now" in template_text(tokenizer)


def with_fixed_clock(tokenizer: Any) -> None:
    """Makes a tokenizer's template see the date of `writing_date` in place of the clock's."""
    if reads_clock(tokenizer) and not isinstance(tokenizer.apply_chat_template, partial):
        tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, strftime_now=_told)


@dataclass(frozen=True)
class Chat:
    """How a chat template frames an answer."""

    opening: str
    """What `add_generation_prompt` adds; "" where the end of the user's turn opens the answer."""
    lead: str
    """What the template writes between the opening and a finished answer: an empty block of thinking (Qwen3), or a
    token that begins the answer proper (Cohere)."""
    end: int | None
    """Id of the token that ends the assistant's turn; None where the template writes none."""
    end_text: str
    thinking: tuple[str, str] | None
    """How a block of thinking begins and ends, if the template knows of one."""
    opens_thinking: bool
    """Whether the opening begins such a block, so that all answers do."""
    clock: bool
    writes_bos: bool
    text: str
    """A whole rendered exchange."""


def read_chat(tokenizer: "PreTrainedTokenizerBase") -> Chat:
    """Renders a probe with the chat template and reads off what it does.

    Raises:
        InputError: there is no template, it cannot render an exchange, does not open an answer or opens another one
            than it writes, ends answers with what is no token, begins with two beginning-of-sequence tokens, or parts
            answers into channels.
    """
    where = f"The chat template of '{tokenizer.name_or_path}'"
    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer '{tokenizer.name_or_path}' has no chat template. Save it with the chat_template.jinja that "
            "its model was trained with."
        )
    if "<|channel|>" in template_text(tokenizer):
        raise InputError(f"{where} writes channels (<|channel|>, as gpt-oss), which are not read here yet.")
    asked, answered, more = (_messages(count) for count in (1, 2, 3))
    plain, ready, whole = (
        _rendered(tokenizer, asked, False), _rendered(tokenizer, asked, True), _rendered(tokenizer, answered, False),
    )  # fmt: skip
    if _ANSWER not in whole or _QUESTION not in whole:
        raise InputError(f"{where} leaves out what user or assistant say. Mend it, or take that of the model's maker.")
    before, _, after = whole.partition(_ANSWER)
    opening = ready[len(plain) :] if ready.startswith(plain) else ready[len(_common(ready, plain)) :]
    lead = before[len(ready) :] if before.startswith(ready) else ""
    _check_opening(tokenizer, (plain, ready, before), opening, where)
    _check_bos(tokenizer, ready, where)
    end = first_added(tokenizer, after)
    if end is None and after.strip():
        raise InputError(
            f"{where} ends answers with {after.strip()!r}, which is no token of its tokenizer: answers would not stop "
            "there. Take the tokenizer that the model was trained with; or write {{ eos_token }} in its place, if that "
            "is how the model ends."
        )
    if end is None:  # some write it as the next turn begins
        end = first_added(tokenizer, _between(_rendered(tokenizer, more, False)))
    thinking, bos = _thinking(tokenizer, opening), tokenizer.bos_token
    return Chat(
        opening=opening,
        lead=lead,
        end=end,
        end_text="" if end is None else str(tokenizer.convert_ids_to_tokens(end)),
        thinking=thinking,
        opens_thinking=thinking is not None and opening.rfind(thinking[0]) > opening.rfind(thinking[1]),
        clock=reads_clock(tokenizer),
        writes_bos=bool(bos) and ready.startswith(str(bos)),
        text=whole,
    )


def _thinking(tokenizer: Any, opening: str) -> tuple[str, str] | None:
    """The marks that a template knows. Of several pairs those that it opens, or that are tokens, or that are whole."""
    source, vocabulary = template_text(tokenizer), tokenizer.get_vocab()

    def known(pair: tuple[str, str]) -> tuple[bool, bool, bool]:
        return pair[0] in opening, all(mark in vocabulary for mark in pair), all(mark in source for mark in pair)

    found = [pair for pair in THINKING if any(mark in source or mark in opening for mark in pair)]
    return max(found, key=known, default=None)


def _check_opening(tokenizer: Any, rendered: tuple[str, str, str], opening: str, where: str) -> None:
    """An answer is opened by what stands before a finished one, blocks of thinking and tokens of its own aside."""
    plain, ready, before = rendered
    if ready.startswith(before.rstrip()) or (opening.strip() and before.rstrip().endswith(opening.rstrip())):
        return
    lead = before[len(ready.rstrip()) :] if before.startswith(ready.rstrip()) else None
    if opening.strip() and lead is not None and not _words(tokenizer, _unthought(lead)):
        return
    begins = before[len(_common(before, plain)) :] or before[len(_common(before, ready)) :]
    if opening.strip():
        raise InputError(
            f"{where} opens an answer with {opening!r}, but a finished one begins with {begins!r}. Let both be the "
            "same, or take the template of the model's maker."
        )
    if lead is None or _unthought(lead).strip():
        raise InputError(
            f"{where} opens no answer: add_generation_prompt adds nothing to it, and an answer begins with {begins!r}. "
            "Answers would continue the user's turn. Add `{% if add_generation_prompt %}…{% endif %}` with that text, "
            "or take the template of the model's maker."
        )


def _unthought(text: str) -> str:
    """What is left of a text without the block of thinking in it."""
    for begin, end in THINKING:
        if begin in text and end in text:
            text = text.partition(begin)[0] + text.rpartition(end)[2]
    return text


def _words(tokenizer: Any, text: str) -> bool:
    """Whether there is more in a text than added tokens and white space."""
    added = sorted((str(token) for token in tokenizer.added_tokens_decoder.values()), key=len, reverse=True)
    for token in added:
        text = text.replace(token, "")
    return bool(text.strip())


def _messages(count: int) -> list[dict[str, str]]:
    texts = [("user", _QUESTION), ("assistant", _ANSWER), ("user", _NEXT)]
    return [{"role": role, "content": text} for role, text in texts[:count]]


def _rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], ready: bool) -> str:
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=ready))
    except Exception as error:  # whatever a template's code may raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"The chat template of '{tokenizer.name_or_path}' cannot render a conversation of "
            f"{', '.join(message['role'] for message in messages)}: {first}. Mend it, or take that of its maker."
        ) from error


def _common(one: str, other: str) -> str:
    """How two texts begin alike."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return one[:place]
    return one[: min(len(one), len(other))]


def _between(whole: str) -> str:
    """What stands between the answer and the next request."""
    return whole.partition(_ANSWER)[2].partition(_NEXT)[0]


def first_added(tokenizer: Any, text: str) -> int | None:
    """The first token of the text that is no ordinary one."""
    added = {*tokenizer.added_tokens_decoder, *tokenizer.all_special_ids}
    added -= {tokenizer.unk_token_id, tokenizer.bos_token_id} - {tokenizer.eos_token_id}
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] if text.strip() else []
    return next((int(token) for token in ids if token in added), None)


def _check_bos(tokenizer: Any, text: str, where: str) -> None:
    bos, ids = tokenizer.bos_token_id, tokenizer(text, add_special_tokens=False)["input_ids"]
    if bos is not None and list(ids[:2]) == [bos, bos]:
        raise InputError(f"{where} begins with two {tokenizer.bos_token} tokens. Take one of them out of the template.")


def ends_of(model: Any, tokenizer: Any) -> list[int]:
    """The tokens at which a generation stops: the model's own, the tokenizer's, and the template's end of turn."""
    settings = getattr(model, "generation_config", None)
    given = [getattr(settings, "eos_token_id", None), tokenizer.eos_token_id, _end_of_turn(tokenizer)]
    listed = [token for one in given if one is not None for token in (one if isinstance(one, list) else [one])]
    return sorted(set(listed))


def _end_of_turn(tokenizer: Any) -> int | None:
    if not tokenizer.chat_template:
        return None
    return read_chat(tokenizer).end


def begun(tokenizer: Any, messages: Sequence[Mapping[str, str]], **settings: Any) -> str:
    """The prompt of an answer whose beginning is given as the last message: the opening is that of every answer.

    What transformers' `continue_final_message` renders would lack what the template opens answers with but does not
    write before a finished one (a block of thinking, say), and would have what it writes before finished ones alone.
    """
    cut = tokenizer.apply_chat_template(list(messages), tokenize=False, continue_final_message=True, **settings)
    ready = tokenizer.apply_chat_template(list(messages[:-1]), tokenize=False, add_generation_prompt=True, **settings)
    begun_so = cut.startswith(ready.rstrip()) and cut[len(ready.rstrip()) :].strip() == messages[-1]["content"].strip()
    return str(cut if begun_so else ready + messages[-1]["content"])
