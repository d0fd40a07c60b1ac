"""`safebasin restore`: the restoration alone, from files to a restored adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from ...errors import InputError
from ...registry import suggest
from ...tasks.rows.reader import read_columns, read_rows
from ..config.file import read_value
from ..stages.models import resolve
from ..terminal.progress import bars
from ..terminal.quiet import quiet

__all__ = ["columns_of_both", "read_settings", "restore_adapter"]


def restore_adapter(
    base: str,
    adapter: Path,
    forget: str,
    retain: str,
    output: Path,
    given: dict[str, Any],
    columns: Mapping[str, Mapping[str, str]],
    seed: int,
    console: Console,
) -> None:
    """Restores the adapter in a folder and prints how the rows were read, and what each iteration did.

    Raises:
        InputError: a file, the model, the adapter or a setting is unusable.
    """
    forget_rows = read_rows(forget, ("prompt",), columns["forget"])
    retain_rows = read_rows(retain, ("prompt", "response"), columns["retain"])
    for name, read in (("forget", forget_rows), ("retain", retain_rows)):
        console.print(f"{name}: {read.said}", highlight=False, markup=False)
    quiet()
    from ...restore.api import restore_folder
    from ...restore.config.settings import RestoreConfig

    known = ["preset", *(field.name for field in fields(RestoreConfig))]
    for key in given:
        if key not in known:
            raise InputError(f"--set {key}: the restoration has no such setting. {suggest(key, known)}")
    with bars(console) as shown:
        result = restore_folder(
            resolve(base).location,
            adapter,
            forget_rows.rows,
            retain_rows.rows,
            output,
            config=RestoreConfig.from_preset(given.pop("preset", "default"), **{"seed": seed, **given}),
            on_progress=lambda what, done, total: shown.update(what, done, total),
        )
    console.print(result.trace.to_string())
    console.print(f"The restored adapter is in {output}", highlight=False)


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads `key=value` pairs, the values as YAML.

    Raises:
        InputError: one is of another form.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--set '{pair}' is not of the form KEY=VALUE, for example epsilon=0.05.")
        try:
            found[key.strip()] = read_value(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set '{pair}': the value is no YAML ({' '.join(str(error).split())}).") from error
    return found


def columns_of_both(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    """Reads `prompt=question,response=answer`, for both files or, as `forget.prompt=request`, for one of them.

    For both, `response` is of the retain rows alone, `target` and `refusal` of the forget rows alone.

    Raises:
        InputError: one is of another form, or names an unknown role.
    """
    found: dict[str, dict[str, str]] = {"forget": {}, "retain": {}}
    own: dict[str, dict[str, str]] = {"forget": {}, "retain": {}}
    for text in (part for given in texts for part in given.split(",")):
        name, dot, rest = text.strip().partition(".")
        if dot and name in own:
            own[name] |= read_columns(rest)
            continue
        for role, column in read_columns(text).items():
            if role != "response":
                found["forget"][role] = column
            if role not in ("target", "refusal"):
                found["retain"][role] = column
    return {name: found[name] | own[name] for name in found}
