"""Text and data made fit for a page: whatever a model wrote, a browser only shows it."""

import json
import re
from typing import Any

__all__ = ["for_script", "visible"]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # what turns the direction of text, or takes no room
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, and tags
)


def visible(text: str, limit: int | None = None) -> str:
    """The text with all characters that act unseen named in brackets: U+202E becomes ``⟨U+202E⟩``.

    Line breaks of other systems become line feeds.

    Args:
        text: anything, lone surrogates included.
        limit: characters to keep; what is cut off is counted at the end.

    Returns:
        Text that every encoding of Unicode can hold.
    """
    kept = text if limit is None else text[:limit]
    shown = _UNSEEN.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", kept.replace("\r\n", "\n"))
    rest = len(text) - len(kept)
    return f"{shown} ⟨{rest:,} more characters⟩" if rest else shown


def for_script(value: Any) -> str:
    """The value as JSON that cannot end the script element that it stands in: ASCII, without < > and &.

    Raises:
        ValueError: it holds a NaN or an infinity, which are not JSON.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
