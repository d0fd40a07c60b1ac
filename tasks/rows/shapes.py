"""Which column is the prompt and which the response: told by the names that data sets are published with."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import InputError, listed
from ...registry import suggest
from .conversations import Unusable, exchange, kind_of, read_history, read_turns
from .formats import Record, Table

__all__ = ["ROLES", "SHAPES", "Shape", "check_columns", "label_of", "row_of", "shape_of"]

ROLES = ("prompt", "response", "target", "refusal", "context", "system", "messages", "history", "before", "harmful")
"""What a column may be. `context` belongs to the prompt, `messages` is a whole conversation, `before` the turns before
the prompt, `history` pairs of texts before it, `harmful` a label: read where labels are needed, and nowhere else."""
_TRUE, _FALSE = ("true", "yes", "1", "1.0", "harmful", "unsafe"), ("false", "no", "0", "0.0", "harmless", "safe")
_NO_TEXT = ("messages", "history", "before", "harmful")
_ALWAYS = {"target": "target", "refusal": "refusal", "system": "system"}


@dataclass(frozen=True)
class Shape:
    """A way to write rows."""

    name: str
    columns: Mapping[str, str]
    """Role -> column, in lower case."""
    needs: tuple[str, ...]
    """Columns by which it is told."""
    beside: tuple[str, ...] = ()
    """Columns of other shapes that it has too, and that say nothing more."""
    joined: str = "{prompt}\n\n{context}"
    """A prompt with its context."""

    def shown(self, columns: Collection[str]) -> str:
        """The shape with its columns that are there."""
        return f"{self.name} ({', '.join(name for name in self.columns.values() if name.casefold() in columns)})"


def _shape(name: str, needs: str, beside: str = "", joined: str = Shape.joined, **columns: str) -> Shape:
    return Shape(name, columns | _ALWAYS, tuple(needs.split()), tuple(beside.split()), joined)


SHAPES = (
    _shape("prompt/response", "prompt", prompt="prompt", response="response", before="before"),
    _shape("prompt/completion", "prompt completion", prompt="prompt", response="completion"),
    _shape("Alpaca", "instruction", prompt="instruction", context="input", response="output", history="history"),
    _shape("Dolly", "instruction", prompt="instruction", context="context", response="response"),
    _shape("messages", "messages", "prompt", messages="messages"),
    _shape("ShareGPT", "conversations", messages="conversations"),
    _shape("conversation", "conversation", messages="conversation"),
    _shape("AdvBench", "goal", prompt="goal"),
    _shape("JailbreakBench", "goal behavior", "behavior", prompt="goal"),
    _shape(
        "HarmBench", "behavior", prompt="behavior", context="contextstring", joined="{context}\n\n---\n\n{prompt}"
    ),
    _shape("StrongREJECT", "forbidden_prompt", prompt="forbidden_prompt"),
)  # fmt: skip
_MEANT = frozenset(name for shape in SHAPES for name in shape.columns.values())
"""Columns that mean something in some shape, so that a shape without them would lose what they say."""


def check_columns(columns: Mapping[str, str], at: str = "--columns") -> None:
    """Refuses a map whose keys are none of `ROLES`.

    Raises:
        InputError: an unknown key.
    """
    for role in columns:
        if role not in ROLES:
            raise InputError(f"{at}: a column cannot be '{role}'. {suggest(role, ROLES)}")


def shape_of(table: Table, source: str, needs: Sequence[str], given: Mapping[str, str]) -> Shape:
    """The shape of a table, by its columns and by what the user says of them.

    Args:
        table: the rows.
        source: where they are from.
        needs: roles that every row must have.
        given: role -> column; takes precedence, and decides by itself where it names the prompt.

    Raises:
        InputError: no shape, or more than one, or a column that is not there.
    """
    names = {name.strip().casefold() for name in table.columns}
    given = {"harmful": "harmful", **given} if "harmful" in needs and "harmful" in names else given
    asked = {role: column.strip().casefold() for role, column in given.items()}
    for role, column in asked.items():
        if column not in names:
            raise InputError(
                f"'{source}' has no column '{given[role]}', named as {role}. {suggest(given[role], table.columns)}"
            )
    if "prompt" in asked or "messages" in asked:
        own = {role: role for role in ("response", *_ALWAYS) if role in names - set(asked.values())}
        shape = Shape("as given", own | asked, tuple(asked.values()))
    else:
        found = _told(names - set(asked.values()), _filled(table.records) - set(asked.values()))
        if len(found) != 1:
            raise InputError(_untold(found, names, table, source))
        shape = Shape(found[0].name, {**found[0].columns, **asked}, found[0].needs, joined=found[0].joined)
    told = ("prompt", "response") if "messages" in shape.columns else ()
    lacking = [role for role in needs if shape.columns.get(role) not in names and role not in told]
    if lacking:
        raise InputError(
            f"'{source}' has no column for {' and '.join(lacking)}: its shape is {shape.shown(names)}, its columns are "
            f"{', '.join(table.columns)}. Name it: {_example(lacking)}."
        )
    return shape


def row_of(record: Record, shape: Shape, needs: Sequence[str]) -> dict[str, Any]:
    """The row that a record stands for: `prompt`, and where it has them `response`, `target`, `refusal`, `before`.

    Where it is needed, `harmful` is there too: true or false.

    Raises:
        Unusable: a needed text is absent or empty, or a cell is no text.
    """
    cells = {name.strip().casefold(): (name, cell) for name, cell in record.cells.items()}
    given = {
        role: cells[column] for role, column in shape.columns.items() if column in cells and cells[column][1] != ""
    }
    if isinstance(given.get("prompt", ("", ""))[1], list):
        given["messages"] = _turns_of(given.pop("prompt"), given.pop("response", None))
    texts = {role: _text(*named) for role, named in given.items() if role not in _NO_TEXT}
    row: dict[str, Any] = {role: texts[role] for role in ("prompt", "response", "target", "refusal") if texts.get(role)}
    if "harmful" in needs and "harmful" in given:
        row["harmful"] = label_of(*given["harmful"])
    if texts.get("context") and row.get("prompt"):
        row["prompt"] = shape.joined.format(prompt=texts["prompt"], context=texts["context"])
    turns = read_history(given["history"][1], given["history"][0]) if "history" in given else []
    turns += read_turns(given["before"][1], given["before"][0]) if "before" in given else []
    if "messages" in given:
        row |= exchange(read_turns(given["messages"][1], given["messages"][0]), "response" in needs)
        turns = row.pop("before", [])
    if texts.get("system"):
        if any(turn["role"] == "system" for turn in turns):
            raise Unusable("it has two system messages, one among its turns")
        turns = [{"role": "system", "content": texts["system"]}, *turns]
    for role in needs:
        if role not in row:
            told = "messages" in shape.columns and role != "harmful"
            column = shape.columns["messages" if told else role]
            raise Unusable(f"{column} is {'empty' if column in cells else 'absent, null or empty'}")
    return row | ({"before": turns} if turns else {})


def label_of(name: str, cell: Any) -> bool:
    """A cell's yes or no, as people write it.

    Raises:
        Unusable: it is neither.
    """
    word = str(cell).strip().casefold()
    if word not in (*_TRUE, *_FALSE):
        raise Unusable(f"{name} is {cell!r}, neither of {', '.join(_TRUE)} nor of {', '.join(_FALSE)}")
    return word in _TRUE


def _turns_of(prompt: tuple[str, Any], response: tuple[str, Any] | None) -> tuple[str, Any]:
    """A prompt that is a list of turns, with the turns of its response, as one conversation."""
    if response is not None and not isinstance(response[1], list):
        return prompt[0], [*prompt[1], {"role": "assistant", "content": response[1]}]
    return prompt[0], [*prompt[1], *(response[1] if response else ())]


def _text(name: str, cell: Any) -> str:
    """A cell's text; empty where it is of white space."""
    if not isinstance(cell, str):
        raise Unusable(f"{name} is {kind_of(cell)}, not text")
    return cell if cell.strip() else ""


def _filled(records: Iterable[Record]) -> set[str]:
    """Columns that some record has something in."""
    return {
        name.strip().casefold()
        for record in records
        for name, cell in record.cells.items()
        if not isinstance(cell, str | list) or (cell.strip() if isinstance(cell, str) else cell)
    }


def _told(names: Collection[str], filled: Collection[str]) -> list[Shape]:
    """The shapes that such columns may be of; those that would be read alike count once."""
    found: dict[tuple[tuple[str, str], ...], Shape] = {}
    for shape in SHAPES:
        known = {*shape.columns.values(), *shape.beside}
        if set(shape.needs) <= set(names) and (set(filled) & _MEANT) <= known:
            read = tuple(sorted(item for item in shape.columns.items() if item[1] in names))
            found.setdefault(read, shape)
    return list(found.values())


def _untold(found: Sequence[Shape], names: Collection[str], table: Table, source: str) -> str:
    """Why the shape is not known."""
    has = f"its columns are {', '.join(table.columns)}"
    by_record = {record.place: _told(own := _filled([record]), own) for record in table.records}
    kinds = {place: told[0].name for place, told in by_record.items() if len(told) == 1}
    if len(kinds) == len(by_record) and len(set(kinds.values())) > 1:
        first = next(iter(kinds.values()))
        others = [f"{place}: {kind}, not {first}." for place, kind in kinds.items() if kind != first]
        return f"'{source}' holds several shapes: {len(others)} rows are not like the first:\n{listed(others)}"
    likely = [shape.shown(names) for shape in (found or [one for one in SHAPES if set(one.needs) <= set(names)])]
    if likely:
        return (
            f"'{source}' can be read in more than one way: {has}, which has something of {' and of '.join(likely)}. "
            f"Say which to take: {_example(('prompt', 'response'))}."
        )
    return (
        f"'{source}' lacks the columns of every known shape: {has}. Name them: {_example(('prompt', 'response'))}, "
        f"or rename them as in one of {', '.join(shape.name for shape in SHAPES)}."
    )


def _example(roles: Sequence[str]) -> str:
    given = ",".join(f"{role}=COLUMN" for role in roles)
    return (
        f"--columns {given} (in a config the key columns beside it, {{{given.replace('=', ': ').replace(',', ', ')}}})"
    )
