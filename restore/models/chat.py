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

__all__ = ["DATE", "THINKING", "Chat", "begun", "ends_of", "read_chat", "with_fixed_clock", "writing_date"]

DATE = date(2024, 7, 26)
"""What a template that asks for today's date is told, unless a run's config says otherwise: the same in every run."""
THINKING = (
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<thought>", "</thought>"), ("[THINK]", "[/THINK]"),
    ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"), ("<|begin_of_thought|>", "<|end_of_thought|>"),
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
        InputError: there is no template, it cannot render an exchange, does not open an answer, begins with two
            beginning-of-sequence tokens, or parts answers into channels.
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
    if ready == plain and before.rstrip() != plain.rstrip():
        raise InputError(
            f"{where} opens no answer: with and without add_generation_prompt it renders the same, and an answer "
            f"begins with {before[len(_common(before, plain)) :]!r}. Answers would continue the user's turn. Add "
            "`{% if add_generation_prompt %}…{% endif %}` with that text, or take the template of the model's maker."
        )
    _check_bos(tokenizer, ready, where)
    end = _first_added(tokenizer, after)
    if end is None:  # some write it as the next turn begins
        end = _first_added(tokenizer, _between(_rendered(tokenizer, more, False)))
    opening = ready[len(plain) :] if ready.startswith(plain) else ready[len(_common(ready, plain)) :]
    source = template_text(tokenizer)
    thinking = next((pair for pair in THINKING if any(mark in source or mark in opening for mark in pair)), None)
    bos = tokenizer.bos_token
    return Chat(
        opening=opening,
        end=end,
        end_text="" if end is None else str(tokenizer.convert_ids_to_tokens(end)),
        thinking=thinking,
        opens_thinking=thinking is not None and opening.rfind(thinking[0]) > opening.rfind(thinking[1]),
        clock=reads_clock(tokenizer),
        writes_bos=bool(bos) and ready.startswith(str(bos)),
        text=whole,
    )


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


def _first_added(tokenizer: Any, text: str) -> int | None:
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

    Where the template opens answers with more than it writes before a finished one (a block of thinking, say), what
    transformers' `continue_final_message` renders would lack it.
    """
    cut = tokenizer.apply_chat_template(list(messages), tokenize=False, continue_final_message=True, **settings)
    ready = tokenizer.apply_chat_template(list(messages[:-1]), tokenize=False, add_generation_prompt=True, **settings)
    return str(cut if cut.startswith(ready.rstrip()) else ready + messages[-1]["content"])
