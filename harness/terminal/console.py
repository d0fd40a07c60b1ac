"""A console on which nothing acts but what we style: texts of models, data and users may hold codes for terminals."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment

from ...results.text import visible

__all__ = ["safe_console"]


def safe_console(**settings: Any) -> Console:
    """A rich console that names control characters, turns of direction and lone surrogates instead of sending them.

    Args:
        settings: of `rich.console.Console`.
    """
    console = Console(emoji=False, **settings)
    console.push_render_hook(_Named())
    return console


class _Named(RenderHook):
    """The last step before anything is written."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wraps each of them."""
        return [_Inert(each) for each in renderables]


class _Inert:
    """A renderable whose text is inert; codes of rich's own (colours, the cursor) are no text."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        segments: Iterable[Segment] = console.render(self.inner, options)
        for segment in segments:
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
