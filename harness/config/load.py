"""From a config file and overrides to a checked `RunConfig`, or to one message with everything that is wrong."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...errors import InputError
from ...registry import suggest
from .alignment import AlignConfig
from .checks import CHECKS
from .faults import Fault, report, type_fault
from .file import read_yaml, with_overrides
from .model import BASE, DataConfig, FinetuneConfig, ModelSpec, RunConfig, TaskLists
from .parallel import ParallelConfig
from .published import PublishedConfig
from .relapse import RelapseConfig
from .resources import ResourcesConfig, SlurmConfig

__all__ = ["BASE", "RunConfig", "check_config", "load_config"]

_SECTIONS: dict[str, type[BaseModel]] = {
    "models": ModelSpec,
    "finetune": FinetuneConfig,
    "data": DataConfig,
    "tasks": TaskLists,
    "resources": ResourcesConfig,
    "slurm": SlurmConfig,
    "parallel": ParallelConfig,
}
_NAMED: dict[str, type[BaseModel]] = {"published": PublishedConfig}
"""Sections whose keys are names of the user's, each with one of these below it."""
_INNER: dict[str, type[BaseModel]] = {"align": AlignConfig, "relapse": RelapseConfig}
"""Sections inside others."""
_PLACEHOLDER = {"name": "run", "models": ["sandbox"], "methods": [BASE], "tasks": {}}
"""Stands in for malformed sections, so that the others can be checked all the same."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads and checks a run config. Relative paths in it start from the working folder.

    Args:
        path: the YAML file.
        overrides: `a.b.c=value` each, the value in YAML; they replace or add to what the file says.

    Raises:
        InputError: the file cannot be read, or all that is wrong with file and overrides, one line each.
    """
    path = Path(path)
    data, wrong = with_overrides(read_yaml(path), overrides)
    data.setdefault("name", path.stem)
    try:
        config, faults = check_config(data)
    except OSError as error:  # a name that is taken for a path, and is longer than one may be
        raise InputError(
            f"{path}: '{str(error.filename)[:60]}' cannot be looked at: {error.strerror}. Correct it."
        ) from error
    faults = [*wrong, *faults]
    if faults or config is None:
        raise InputError(report(faults, str(path)))
    return config


def check_config(data: Mapping[str, Any]) -> tuple[RunConfig | None, list[Fault]]:
    """The config that plain data stand for (None if malformed), and all that is wrong with it."""
    config, faults = _parse(data)
    sound, malformed = (config, set()) if config else _sound_part(data, faults)
    bad_methods = tuple(f"{at}." for at in _bad_methods(faults))
    if sound is not None:
        found = [fault for sections, check in CHECKS if malformed.isdisjoint(sections) for fault in check(sound)]
        faults += [fault for fault in found if not f"{fault.at}.".startswith(bad_methods)]
    return config, faults


def _sound_part(data: Mapping[str, Any], faults: Sequence[Fault]) -> tuple[RunConfig | None, set[str]]:
    """The config with placeholders for malformed sections, and their names; of methods, for malformed entries only."""
    malformed = {fault.at.partition(".")[0] for fault in faults}
    kept = {key: value for key, value in data.items() if key not in malformed}
    bad = _bad_methods(faults)
    if bad:
        entries = enumerate(data["methods"])
        kept["methods"] = [{"lora": {"label": f"({i})"}} if f"methods.{i}" in bad else entry for i, entry in entries]
        malformed.discard("methods")
    return _parse(_PLACEHOLDER | kept)[0], malformed


def _bad_methods(faults: Sequence[Fault]) -> set[str]:
    """Places of malformed entries of `methods`; none if the list itself is malformed."""
    return {".".join(fault.at.split(".")[:2]) for fault in faults if fault.at.startswith("methods.")}


def _parse(data: Mapping[str, Any]) -> tuple[RunConfig | None, list[Fault]]:
    try:
        return RunConfig.model_validate_json(json.dumps(_listed(data), default=str)), []
    except ValidationError as error:
        places = [details["loc"] for details in error.errors()]
        details = [d for d in error.errors() if d["type"] != "too_short" or not _inside(d["loc"], places)]
        return None, [_fault(each) for each in details]


def _inside(place: tuple[int | str, ...], places: Sequence[tuple[int | str, ...]]) -> bool:
    """Whether something inside this place is wrong too: a list is not empty for want of its one malformed item."""
    return any(len(other) > len(place) and other[: len(place)] == place for other in places)


def _fault(error: ErrorDetails) -> Fault:
    at = ".".join(map(str, error["loc"]))
    return Fault(at, _unknown_key(error["loc"]) if error["type"] == "extra_forbidden" else type_fault(error))


def _unknown_key(place: tuple[int | str, ...]) -> str:
    """Says which key was meant: the nearest of its section, or the same key of another section."""
    key = str(place[-1])
    inner = _NAMED.get(str(place[0]), _INNER.get(str(place[-2]))) if len(place) > 2 else None
    section = RunConfig if len(place) == 1 else inner or _SECTIONS[str(place[0])]
    known = section.model_fields
    elsewhere = [f"{name}.{key}" for name, section in _SECTIONS.items() if key in section.model_fields]
    if len(place) > 1 and key in RunConfig.model_fields:
        elsewhere.insert(0, key)
    return f"unknown key. Did you mean '{elsewhere[0]}'?" if elsewhere else f"unknown key. {suggest(key, known)}"


def _listed(data: Any) -> Any:
    """PEFT's word for all linear layers may stand alone, as PEFT takes it."""
    finetune = data.get("finetune") if isinstance(data, dict) else None
    if isinstance(finetune, dict) and finetune.get("target_modules") == "all-linear":
        return {**data, "finetune": {**finetune, "target_modules": ["all-linear"]}}
    return data
