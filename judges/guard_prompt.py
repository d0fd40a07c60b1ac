"""The prompt of a guard: its own chat template, and a check that the template swallowed nothing."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..errors import InputError
from .base import Exchange

__all__ = ["GuardPrompt", "Prompt", "broken_up", "special_tokens"]

_PROBE = Exchange("safebasin-probe-request-7c1f", "safebasin-probe-response-93ab")


class Prompt(Protocol):
    """Makes the prompt of a judge out of an exchange."""

    @property
    def template(self) -> str:
        """All that is in every prompt, as text: it is part of the judge's identity."""
        ...

    def encode(self, exchange: Exchange) -> list[int]:
        """Token ids of the prompt, the beginning of text included where the judge has one."""
        ...


class GuardPrompt:
    """Renders exchanges with the chat template of a guard.

    Some templates (Llama Guard 3 1B and 11B, Llama Guard 4) take the content of a message as a list of parts and
    render an *empty conversation* from a plain string, which the guard then calls safe. So both forms are tried with a
    probe, the one that shows both texts is used, and every prompt rendered later is compared with what the probe
    showed: the template's own text around the two texts, up to white space.
    """

    def __init__(
        self,
        renderer: Any,
        tokenizer: Any,
        settings: Mapping[str, Any] | None = None,
        generation: bool = True,
        last: str | None = None,
    ) -> None:
        """Finds the form of content that the template reads.

        Args:
            renderer: what has `apply_chat_template`: a tokenizer, or the processor of a multimodal guard.
            tokenizer: the tokenizer that encodes the rendered text.
            settings: what else the template reads, such as `guideline`.
            generation: whether the template is asked for the header of an answer.
            last: a last message of the user's, behind the exchange, for guards that are told there what to judge.

        Raises:
            InputError: there is no template, or it shows the conversation in neither form.
        """
        self._renderer, self._tokenizer = renderer, tokenizer
        self._settings, self._generation, self._last = dict(settings or {}), generation, last
        if not getattr(renderer, "chat_template", None):
            raise InputError("The guard's tokenizer has no chat template. Is this the right model?")
        self._special = special_tokens(tokenizer)
        self.listed, self._frame = self._probe()

    @property
    def template(self) -> str:
        """The chat template, as text, and what it is given beside the exchange."""
        given = [f"{name}={value!r}" for name, value in sorted(self._settings.items())]
        return "\0".join([str(self._renderer.chat_template), *given, *([self._last] if self._last else [])])

    @property
    def opening(self) -> str:
        """What the template says before the conversation: task and categories."""
        return self._frame[0]

    @property
    def closing(self) -> str:
        """What it says after the response."""
        return self._frame[2]

    def encode(self, exchange: Exchange) -> list[int]:
        """Token ids of the prompt; the template brings its own beginning-of-text token, so none is added."""
        ids: list[int] = self._tokenizer.encode(self.render(exchange), add_special_tokens=False)
        return ids

    def render(self, exchange: Exchange) -> str:
        """The prompt as text.

        A special token spelled out in a text ("<|eot_id|>") would end the conversation early and let a response
        dictate its own verdict, so such a spelling is broken up by a space after its first character.

        Raises:
            InputError: the rendered prompt does not show both texts as they are.
        """
        exchange = Exchange(*(broken_up(text, self._special) for text in exchange))
        rendered = self._apply(exchange, self.listed)
        opening, between, closing = self._frame
        if _squeeze(rendered) != _squeeze(opening + exchange.prompt + between + exchange.response + closing):
            raise InputError(
                f"The guard's chat template does not show this exchange as it is: {exchange!r:.200}. Its verdict would "
                "be about another text."
            )
        return rendered

    def _probe(self) -> tuple[bool, tuple[str, str, str]]:
        """Form of content (True: list of parts), and the text before, between and after the two texts."""
        from jinja2 import TemplateError

        for listed in (False, True):
            try:
                rendered = self._apply(_PROBE, listed)
            except (TemplateError, TypeError, AttributeError):  # a template that cannot read this form
                continue
            pieces = re.split(f"{_PROBE.prompt}|{_PROBE.response}", rendered)
            if len(pieces) == 3 and rendered.index(_PROBE.prompt) < rendered.find(_PROBE.response):
                return listed, (pieces[0], pieces[1], pieces[2])
        raise InputError(
            "The guard's chat template shows request and response neither from plain nor from list-typed content, so "
            "it would judge an empty conversation. Is this the right model?"
        )

    def _apply(self, exchange: Exchange, listed: bool) -> str:
        last: Sequence[str] = [self._last] if self._last else []
        texts: list[Any] = [[{"type": "text", "text": text}] if listed else text for text in (*exchange, *last)]
        roles = ("user", "assistant", "user")[: len(texts)]
        messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=True)]
        return str(
            self._renderer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=self._generation, **self._settings
            )
        )


def special_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Matches the spelling of any special token, named (bos, eos) or merely marked as special."""
    marked = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    longest_first = sorted(marked | set(tokenizer.all_special_tokens), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def broken_up(text: str, special: re.Pattern[str]) -> str:
    """The text with a space in every spelling of a special token: it must not act as one."""
    return special.sub(lambda token: token.group()[0] + " " + token.group()[1:], text)


def _squeeze(text: str) -> str:
    """The text without white space: templates trim what they are given."""
    return "".join(text.split())
