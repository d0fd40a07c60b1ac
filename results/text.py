"""Text of others (models, judges, data, users) made fit for where it is shown: nothing in it acts."""

import re

__all__ = ["csv_cell", "from_csv_cell", "latex", "markdown", "one_line", "storable", "visible"]

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # what turns or breaks lines, or takes no room
    "\ud800-\udfff\U000e0000-\U000e007f]"  # halves of characters, and tags
)
_HALVES = re.compile("[\ud800-\udfff]")
_FORMULA = re.compile("'*[=+\\-@\t\r＝＋－＠]")
"""How a cell begins that a spreadsheet would compute, or that `csv_cell` has marked already."""
_LATEX = {
    **{char: f"\\{char}" for char in "&%$#_{}"}, "\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"{\char34}",
    "[": "{[}", "]": "{]}", "*": "{*}", "⟨": r"\textlangle{}", "⟩": r"\textrangle{}",
}  # fmt: skip
"""Brackets and stars too: after the end of a row they would be its arguments."""
_MARKDOWN = re.compile(r"[\\`\[\]<>|]")
LINE = 300
"""Characters shown of a text that stands in a table or on a line."""
CELL = 20_000
"""Characters kept of a text in a CSV cell; other programs read cells of up to 32,767."""


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


def storable(text: str) -> str:
    """The text with halves of characters named: neither files nor tables can hold them."""
    return text if text.isascii() else _HALVES.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def one_line(text: str, limit: int = LINE) -> str:
    """The text on one line, white space as single blanks, what acts unseen named, and cut after `limit` characters."""
    return visible(" ".join(text.split()), limit)


def csv_cell(text: str) -> str:
    """The text as a cell that no spreadsheet computes: `=1+1` becomes `'=1+1`."""
    shown = visible(text, CELL)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def from_csv_cell(text: str) -> str:
    """What `csv_cell` was given, but for characters that it named."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def latex(text: str) -> str:
    """The text on one line, to be typeset as it is: no character of it is a command."""
    return "".join(_LATEX.get(char, char) for char in one_line(text))


def markdown(text: str) -> str:
    """The text on one line, to be shown as it is: no HTML, link, code or cell of a table begins or ends in it."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", one_line(text))
