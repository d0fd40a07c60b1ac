"""Settings in a config become the keyword arguments of a method or judge, once names, types and values are right."""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from ... import registry
from ...errors import InputError
from .faults import Fault, type_fault

if TYPE_CHECKING:
    from ...restore.method import Method

__all__ = ["check_settings", "make_method"]


def make_method(name: str, settings: Mapping[str, Any]) -> "Method":
    """The method registered as `name`, with its settings.

    Raises:
        InputError: unknown method, unknown settings or bad values; all that is wrong, one line each.
    """
    made, faults = check_settings(name, registry.load("methods", name), settings)
    if faults:
        raise InputError("\n".join(str(fault) for fault in faults))
    method: Method = made
    return method


def check_settings(at: str, made_by: type[Any], settings: Mapping[str, Any]) -> tuple[Any, list[Fault]]:
    """Constructs `made_by(**settings)`, with JSON lists as the tuples that its annotations ask for.

    Args:
        at: place of the settings in the config.
        made_by: a method or judge class; its constructor loads nothing. Where it has `from_preset`, the setting
            `preset` names the settings that the others change.
        settings: JSON values.

    Returns:
        The object and no faults, or None and all that could be told to be wrong.
    """
    known = list(inspect.signature(made_by).parameters)
    hints = _hints(made_by)
    values, faults = {}, []
    make: Callable[..., Any] = made_by
    if "preset" in settings and hasattr(made_by, "from_preset"):
        make = partial(made_by.from_preset, settings["preset"])
        settings = {key: given for key, given in settings.items() if key != "preset"}
    for key, given in settings.items():
        if key not in known:
            faults.append(Fault(f"{at}.{key}", f"unknown setting. {registry.suggest(key, known)}"))
            continue
        try:
            values[key] = _typed(hints.get(key, Any), given)
        except ValidationError as error:
            first = error.errors()[0]
            faults.append(Fault(".".join(map(str, (at, key, *first["loc"]))), type_fault(first)))
    if faults:
        return None, faults
    try:
        return make(**values), []
    except (TypeError, ValueError) as error:
        return None, [Fault(at, str(error))]


def _hints(made_by: type[Any]) -> dict[str, Any]:
    """The constructor's annotations; empty if they name what exists for type checkers only."""
    try:
        return get_type_hints(made_by.__init__)
    except NameError:
        return {}


def _typed(hint: Any, given: Any) -> Any:
    """The value as the annotation's type, strictly; as it is, where pydantic does not know the type."""
    try:
        adapter = TypeAdapter(hint)
    except PydanticSchemaGenerationError:
        return given
    return adapter.validate_json(json.dumps(given, default=str), strict=True)
