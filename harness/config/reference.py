"""docs/config.md: every key of a config, from the models that read it.

`python -m safebasin.harness.config.reference > docs/config.md` writes the page.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .alignment import AlignConfig
from .frozen import Frozen
from .model import DataConfig, FinetuneConfig, MethodSpec, ModelSpec, RunConfig, TaskLists
from .parallel import ParallelConfig
from .published import PublishedConfig
from .relapse import RelapseConfig
from .resources import ResourcesConfig, SlurmConfig

__all__ = ["SECTIONS", "reference"]

SECTIONS: dict[str, type[Frozen]] = {
    "The file": RunConfig,
    "models": ModelSpec,
    "models: align": AlignConfig,
    "methods": MethodSpec,
    "finetune": FinetuneConfig,
    "data": DataConfig,
    "tasks": TaskLists,
    "tasks: relapse": RelapseConfig,
    "published": PublishedConfig,
    "resources": ResourcesConfig,
    "slurm": SlurmConfig,
    "parallel": ParallelConfig,
}
"""Headings and what may stand below them, in the order of the page."""
_OPENING = """# The config

Every key that the YAML of `safebasin run` may hold, made from the code that reads it (`harness/config/reference.py`).
An unknown key is an error, and so is a value of another kind; `safebasin validate CONFIG` tells all of them at once.
Where the default is empty the key must be given; `None` is a key that is left out. `~` and environment variables in
paths are replaced.

Every scalar can be set on the command line too, by its path: `safebasin run CONFIG finetune.rank=16 'seeds=[0,1,2]'`.
A config with a reason at each key is written by [`safebasin init`](running.md#your-own-model);
`configs/sandbox.yaml` is the model of all.
"""

_Schema = Mapping[str, Any]
_BOUNDS = {"exclusiveMinimum": "> {}", "minimum": "≥ {}", "exclusiveMaximum": "< {}", "maximum": "≤ {}"}
_KINDS = {"integer": "whole number", "number": "number", "boolean": "true, false", "object": "mapping"}


def reference() -> str:
    """The page, in Markdown."""
    schema = RunConfig.model_json_schema()
    parts = [_OPENING]
    for heading, model in SECTIONS.items():
        fields = schema if model is RunConfig else schema["$defs"][model.__name__]
        parts.append("\n".join([f"## {heading}", _line(fields["description"]), "", *_table(fields), ""]))
    return "\n".join(parts)


def _table(fields: _Schema) -> Iterator[str]:
    """A row for each key."""
    yield "| key | values | default | |"
    yield "|---|---|---|---|"
    for key, field in fields["properties"].items():
        default = "" if key in fields.get("required", ()) else _default(field)
        yield f"| `{key}` | {_values(field)} | {default} | {_line(field['description'])} |"


def _values(field: _Schema) -> str:
    """What a key takes: `whole number > 0`, or the section that says so."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        heading = next(heading for heading, model in SECTIONS.items() if model.__name__ == name)
        return f"[{heading}](#{heading.replace(':', '').replace(' ', '-')})"
    if "anyOf" in field:
        return " or ".join(_values(one) for one in field["anyOf"] if one != {"type": "null"})
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    if field["type"] == "string":
        return str(field.get("format", "text"))
    inner = field.get("additionalProperties")
    if isinstance(inner, dict) and "$ref" in inner:
        return f"mapping to {_values(inner)}"
    bounds = [form.format(field[bound]) for bound, form in _BOUNDS.items() if bound in field]
    return " ".join([_KINDS[field["type"]], ", ".join(bounds)]).strip()


def _default(field: _Schema) -> str:
    default = field.get("default", {})
    if default is None:
        return "None"
    return "its own" if "$ref" in field else f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _line(text: str) -> str:
    """Text in one line, fit for a cell."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
