"""A judge's prompt from a text file of the user's: for judges whose published prompt is not in their tokenizer."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from .base import Exchange
from .guard_prompt import broken_up, special_tokens

__all__ = ["ChatPrompt", "FilePrompt", "PromptText", "check_limit", "first_tokens"]

_FIELDS: Mapping[str, str] = {
    **dict.fromkeys(("prompt", "behavior", "forbidden_prompt", "instruction"), "prompt"),
    **dict.fromkeys(("response", "generation"), "response"),
}
"""Names that published prompts give to the two texts."""
_FIELD = re.compile("{(" + "|".join(_FIELDS) + ")}")


class PromptText:
    """A text with one place for the request and one for the response.

    The places are `{prompt}` (or `{behavior}`, `{forbidden_prompt}`, `{instruction}`) and `{response}` (or
    `{generation}`); all other braces stay as they are. One line break at the very end of the file is an editor's, not
    the prompt's, and is dropped; all other white space counts.
    """

    def __init__(self, path: str, setting: str = "prompt_file") -> None:
        """Reads the file.

        Args:
            path: UTF-8 text.
            setting: what messages call it.

        Raises:
            InputError: it cannot be read, or does not name each of the two texts once.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{setting} '{path}' cannot be read: {error}. Give a UTF-8 text file.") from error
        self.text = text.removesuffix("\n")
        found = [_FIELDS[name] for name in _FIELD.findall(self.text)]
        for wanted in ("prompt", "response"):
            if found.count(wanted) != 1:
                names = " or ".join(f"{{{name}}}" for name, means in _FIELDS.items() if means == wanted)
                raise InputError(
                    f"{setting} '{path}' has {found.count(wanted)} places for the {wanted}: {names}. Give one."
                )

    def fill(self, exchange: Exchange) -> str:
        """The text with both put in, in one pass: a response that spells `{prompt}` stays as it is."""
        return _FIELD.sub(lambda place: str(getattr(exchange, _FIELDS[place.group(1)])), self.text)


class FilePrompt:
    """Encodes such a text as it is, without a chat template.

    The special tokens that the file spells out are special tokens; those that an exchange spells out are broken up. If
    the file begins with the beginning-of-text token it brings its own, else the tokenizer adds what it always adds.
    """

    def __init__(self, text: PromptText, tokenizer: Any) -> None:
        self._text, self._tokenizer, self._special = text, tokenizer, special_tokens(tokenizer)
        self._begun = bool(tokenizer.bos_token) and text.text.startswith(tokenizer.bos_token)

    @property
    def template(self) -> str:
        """The text of the file."""
        return self._text.text

    def render(self, exchange: Exchange) -> str:
        """The prompt as text."""
        return self._text.fill(Exchange(*(broken_up(text, self._special) for text in exchange)))

    def encode(self, exchange: Exchange) -> list[int]:
        """Token ids of the prompt, with one beginning of text."""
        ids: list[int] = self._tokenizer.encode(self.render(exchange), add_special_tokens=not self._begun)
        return ids


class ChatPrompt:
    """Puts such a text to a chat model as the user's message, with its own chat template."""

    def __init__(self, text: PromptText, system: str | None, tokenizer: Any) -> None:
        """Checks that the template shows the message.

        Raises:
            InputError: there is no chat template, or it does not show system message and text as they are.
        """
        from jinja2 import TemplateError

        self._text, self._system, self._tokenizer = text, system, tokenizer
        self._special = special_tokens(tokenizer)
        if not tokenizer.chat_template:
            raise InputError("The model's tokenizer has no chat template. Is this a chat model?")
        try:
            self.render(Exchange("safebasin-probe-request", "safebasin-probe-response"))
        except TemplateError as error:
            raise InputError(f"The model's chat template refuses the rubric's messages: {error}") from error

    @property
    def template(self) -> str:
        """Chat template, system message and text."""
        return "\0".join([str(self._tokenizer.chat_template), self._system or "", self._text.text])

    def render(self, exchange: Exchange) -> str:
        """The prompt as text; a special token that any of its texts spells out is broken up.

        Raises:
            InputError: the rendered prompt does not show the message as it is.
        """
        said = [("system", self._system), ("user", self._text.fill(exchange))]
        messages = [{"role": role, "content": broken_up(text, self._special)} for role, text in said if text]
        rendered = str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        for message in messages:
            if message["content"].strip() not in rendered:
                raise InputError(f"The model's chat template does not show the {message['role']} message as it is.")
        return rendered

    def encode(self, exchange: Exchange) -> list[int]:
        """Token ids of the prompt; the template brings its own beginning-of-text token, so none is added."""
        ids: list[int] = self._tokenizer.encode(self.render(exchange), add_special_tokens=False)
        return ids


def check_limit(limit: int | None) -> int | None:
    """A limit of tokens, if it is one.

    Raises:
        InputError: it is below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"max_response_tokens is {limit}; it must be 1 or more, or null to cut nothing.")
    return limit


def first_tokens(text: str, limit: int | None, tokenizer: Any) -> str:
    """The beginning of a text, as many tokens of it as a published protocol shows its judge; None: all of it."""
    if limit is None:
        return text
    if tokenizer.is_fast:
        ends = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(ends) <= limit else text[: ends[limit - 1][1]]
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return text if len(ids) <= limit else str(tokenizer.decode(ids[:limit]))
