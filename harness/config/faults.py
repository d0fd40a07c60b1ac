"""What is wrong with a config: a place and a sentence each, all of them collected before any is shown."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...registry import suggest

__all__ = ["Fault", "numbered", "report", "twice", "type_fault"]

_NAMES = {"array": "list", "object": "mapping", "tuple": "list", "dictionary": "mapping", "string": "text"}


class Fault(NamedTuple):
    """One thing that is wrong."""

    at: str
    """Dotted place, for example `finetune.rank`."""
    text: str

    def __str__(self) -> str:
        return " ".join(f"{self.at}: {self.text}".split())


def report(faults: Iterable[Fault], source: str) -> str:
    """The message of all faults: a headline with their number, then one line each."""
    lines = [str(fault) for fault in dict.fromkeys(faults)]
    headline = f"{len(lines)} problem{'s' if len(lines) > 1 else ''} in {source}:"
    return "\n".join([headline, *(f"  {line}" for line in lines)])


def type_fault(error: Mapping[str, Any]) -> str:
    """One of pydantic's errors, in the words of the other messages."""
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return "must not be empty"
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", context["expected"])
        return f"unknown value {given!r}. {suggest(str(given), known)}"
    text = error["msg"].removeprefix("Input ").removeprefix("String ").removeprefix("should ").replace("a valid ", "a ")
    text = re.sub(r"\ban? (\w+)", lambda found: _plain(found[1]), text, count=1)
    hint = f"; write [{given}]" if kind == "tuple_type" and isinstance(given, str | int) else ""
    return f"must {text}, got {given!r}{hint}"


def _plain(word: str) -> str:
    name = _NAMES.get(word, word)
    return name if name == "text" else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def numbered(at: str, items: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Each item with its place, `at.0`, `at.1` and so on."""
    return ((f"{at}.{i}", item) for i, item in enumerate(items))


def twice(at: str, items: Sequence[Any]) -> Iterator[Fault]:
    """A fault for each item that is listed more than once."""
    return (Fault(at, f"'{item}' is listed twice") for item in dict.fromkeys(items) if items.count(item) > 1)
