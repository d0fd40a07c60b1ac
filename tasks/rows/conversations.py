"""Turns of a chat, as OpenAI's `messages` and ShareGPT's `conversations` write them, as a prompt and its answer."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["Unusable", "exchange", "kind_of", "read_history", "read_turns"]

_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
"""Where turns of the assistant hold what was thought before the answer."""
_FIELDS = (("role", "content"), ("from", "value"))

Turns = list[dict[str, str]]


class Unusable(ValueError):
    """What is wrong with a row, as the end of a message."""


def kind_of(value: Any) -> str:
    """A value that is no text, in words."""
    names = {bool: "true or false", int: "a number", float: "a number", dict: "an object", list: "a list"}
    name = names.get(type(value), type(value).__name__)
    return f"{name} ({str(value)[:40]})"


def read_turns(cell: Any, column: str) -> Turns:
    """The turns in a cell, with `role` (system, user or assistant) and `content`; an empty system message is left out.

    Raises:
        Unusable: it is no list of such turns.
    """
    turns = _as_list(cell, column)
    found = [_turn(turn, f"turn {number} of {column}") for number, turn in enumerate(turns, start=1)]
    return [turn for turn in found if turn["content"].strip() or turn["role"] != "system"]


def read_history(cell: Any, column: str) -> Turns:
    """Pairs of what the user said and what was answered, as turns.

    Raises:
        Unusable: it is no list of pairs of texts.
    """
    turns: Turns = []
    for number, pair in enumerate(_as_list(cell, column), start=1):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(text, str) and text for text in pair):
            raise Unusable(f"pair {number} of {column} is no pair of texts")
        turns += [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
    return turns


def exchange(turns: Turns, answered: bool) -> dict[str, Any]:
    """The last prompt, the turns `before` it, and the `response` where there is one.

    Args:
        turns: of one conversation.
        answered: whether a response is needed; then what follows the last answer is left out.

    Raises:
        Unusable: no user's turn, or the answer follows none.
    """
    ends = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
    if answered and not ends:
        raise Unusable("it has no turn of the assistant, and a response is needed")
    turns = turns[: ends[-1] + 1] if answered else turns
    response = turns[-1:] if turns and turns[-1]["role"] == "assistant" else []
    asked = turns[: len(turns) - len(response)]
    if not asked or asked[-1]["role"] != "user":
        raise Unusable(f"the last turn {'before the answer ' if response else ''}is not the user's")
    row: dict[str, Any] = {"prompt": asked[-1]["content"]}
    row |= {"response": response[0]["content"]} if response else {}
    return row | ({"before": asked[:-1]} if len(asked) > 1 else {})


def _as_list(cell: Any, column: str) -> list[Any]:
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            cell = json.loads(cell)
        except ValueError as error:
            raise Unusable(f"{column} is no JSON ({error})") from error
    if not isinstance(cell, list):
        raise Unusable(f"{column} is {kind_of(cell)}, not a list of turns")
    return cell


def _turn(turn: Any, where: str) -> dict[str, str]:
    fields = next((pair for pair in _FIELDS if isinstance(turn, Mapping) and pair[0] in turn), None)
    if fields is None:
        raise Unusable(f"{where} has neither role and content nor from and value")
    said, content = turn[fields[0]], turn.get(fields[1])
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None or turn.get("tool_calls"):
        raise Unusable(
            f"{where} is of the role '{said}', or a call of tools: only system, user and assistant are known"
        )
    thoughts = [str(turn[name]) for name in _THOUGHTS if isinstance(turn.get(name), str)]
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        thoughts += [str(part.get("thinking", "")) for part in content if part.get("type") == "thinking"]
        if all(part.get("type") in ("text", "thinking") for part in content):
            content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str):
        raise Unusable(f"{where} holds {kind_of(content)}, not text")
    if not content.strip() and role != "system":
        raise Unusable(f"{where} ({said}) is empty")
    thought = "\n".join(thoughts).strip() if role == "assistant" else ""
    return {"role": role, "content": f"<think>\n{thought}\n</think>\n\n{content}" if thought else content}
