"""Reads a config file and applies `a.b.c=value` overrides; knows YAML, not what the keys mean."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...registry import suggest
from .faults import Fault

__all__ = ["as_yaml", "read_value", "read_yaml", "with_overrides"]


MAX_BYTES = 2**20
MAX_DEPTH, MAX_NODES, MAX_TEXT = 40, 100_000, 20_000
"""Bounds of a config: levels, entries when every `*alias` is written out, and characters of one value."""


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-3` is a number, and one key twice in a mapping is an error.

    A value that is not what it is written as (`!!int abc`, the 13th month), or a structure past the bounds, is an
    error with its line too.
    """

    def get_single_node(self) -> yaml.Node | None:
        try:
            node: yaml.Node | None = super().get_single_node()
        except RecursionError as error:
            raise yaml.MarkedYAMLError(problem="it is nested too deeply", problem_mark=self.get_mark()) from error
        if node is not None:
            _count(node, {}, ())
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            kind = node.tag.rpartition(":")[2]
            shown = f"'{node.value[:40]}' " if isinstance(node, yaml.ScalarNode) else "this "
            raise yaml.MarkedYAMLError(problem=f"{shown}is no {kind}", problem_mark=node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith((":timestamp", ":binary")):
                raise yaml.MarkedYAMLError(problem="a key must be text", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many entries a node has when every alias is written out.

    Raises:
        yaml.MarkedYAMLError: more than the bounds allow, a node is inside itself, or a text is no Unicode.
    """
    wrong = ""
    if id(node) in above:
        wrong = "an alias stands inside what it stands for"
    elif len(above) >= MAX_DEPTH:
        wrong = f"it is nested more than {MAX_DEPTH} levels deep"
    elif isinstance(node, yaml.ScalarNode):
        wrong = f"a value has more than {MAX_TEXT} characters" if len(node.value) > MAX_TEXT else _half(node.value)
    if wrong:
        raise yaml.MarkedYAMLError(problem=wrong, problem_mark=node.start_mark)
    if id(node) not in known:
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
        known[id(node)] = 1 + sum(_count(part, known, (*above, id(node))) for part in parts)
        if known[id(node)] > MAX_NODES:
            wrong = f"it has more than {MAX_NODES} entries, aliases written out"
            raise yaml.MarkedYAMLError(problem=wrong, problem_mark=node.start_mark)
    return known[id(node)]


def _half(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a value holds half of a character (a lone surrogate)"
    return ""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: the file is missing, unreadable or not YAML (with the line), or holds something else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"The config file {path} has more than {MAX_BYTES} bytes. Is it a config?")
        data = yaml.load(content.decode(), Loader=_Loader)
    except FileNotFoundError as error:
        near = [str(other) for other in sorted(path.parent.glob("*.yaml"))]
        raise InputError(
            f"There is no config file {path}. {suggest(str(path), near) if near else ''}".strip()
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The config file {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The config file {path} is not YAML: {_problem(error)}.") from error
    if not isinstance(data, dict):
        raise InputError(f"The config file {path} must hold `key: value` lines; it holds {_kind(data)}.")
    return data


def read_value(text: str) -> Any:
    """The value that a setting on the command line stands for.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def with_overrides(data: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """A copy of `data` with each `a.b.c=value` applied, and what is wrong with the overrides, one line each."""
    faults: list[Fault] = []
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            faults.append(Fault(override, "an override is KEY=VALUE, for example finetune.rank=16"))
            continue
        try:
            data = _with_value(data, keys, read_value(text))
        except yaml.YAMLError as error:
            faults.append(Fault(override, f"the value is not YAML: {_problem(error)}"))
        except InputError as error:
            faults.append(Fault(override, str(error)))
    return data, faults


def _with_value(data: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    key, *rest = keys
    if not rest:
        return data | {key: value}
    inner = data.get(key)
    if inner is not None and not isinstance(inner, dict):
        raise InputError(f"'{key}' is {_kind(inner)} and has no '{rest[0]}'; give it whole: {key}=[…]")
    return data | {key: _with_value(inner or {}, rest, value)}


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


def _kind(value: Any) -> str:
    kinds = {list: "a list", str: "text", type(None): "nothing"}
    return kinds.get(type(value), f"{value!r}")


class _Dumper(yaml.SafeDumper):
    """Writes texts that the loader would take for numbers in quotes, and escapes line breaks that it would fold."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        folds = any(mark in data for mark in "\x85\u2028\u2029")  # within quotes YAML reads a line break as a space
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if folds else None)


_Dumper.add_representer(str, _Dumper.represent_str)
_Dumper.yaml_implicit_resolvers = {key: [*found] for key, found in _Loader.yaml_implicit_resolvers.items()}


def as_yaml(value: Any) -> str:
    """A JSON value as YAML that `read_yaml` and `read_value` read as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
