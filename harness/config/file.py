"""Reads a config file and applies `a.b.c=value` overrides; knows YAML, not what the keys mean."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ...errors import InputError
from ...registry import suggest
from .faults import Fault

__all__ = ["read_value", "read_yaml", "with_overrides"]


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-3` is a number, and one key twice in a mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        InputError: the file is missing, unreadable or not YAML (with the line), or holds something else.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
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
