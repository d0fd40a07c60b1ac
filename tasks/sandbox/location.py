"""Where the sandbox's worlds lie: in the user's cache, under the digest of the source that makes them, and the seed."""

import json
import os
import re
from functools import cache
from pathlib import Path

from ...errors import InputError
from ...registry import suggest
from ...source import source_digest

__all__ = [
    "KINDS",
    "MODELS",
    "WIDTHS",
    "in_world",
    "is_sandbox",
    "model_folder",
    "sandbox_problem",
    "width_of",
    "world_digest",
    "world_folder",
    "world_of",
]

KINDS = ("base", "unaligned", "guard")
"""The models of a world."""
MODELS = ("sandbox", *(f"sandbox/{kind}" for kind in KINDS))
"""Their names in world 0; `sandbox:3/guard` is another world's."""
WIDTHS = (64, 256)
"""Hidden sizes that `base` and `unaligned` are made in besides their own of 128: `sandbox/base-256`."""
_SIZE = "|".join(map(str, WIDTHS))
_KIND = rf"guard|(?:base|unaligned)(?:-(?P<width>{_SIZE}))?"
_NAME = re.compile(rf"sandbox(?::(?P<world>0|[1-9]\d*))?(?:/(?P<kind>{_KIND}))?")
_PACKAGE = Path(__file__).resolve().parents[2]
ROUNDING_VARIABLES = ("ATEN_CPU_CAPABILITY", "MKL_CBWR")
"""Settings of torch and MKL that change how sums are rounded on a CPU, and so which world comes out of the training."""
_SOURCES = (
    "tasks/sandbox/grammar.py",
    "tasks/sandbox/world.py",
    "tasks/sandbox/oracle.py",
    "restore/losses/encoding.py",
)


@cache
def world_digest() -> str:
    """Digest of what the source does that decides what a world is (12 hex digits)."""
    builders = sorted((_PACKAGE / "harness/sandbox").glob("*.py"))
    return source_digest([*(_PACKAGE / name for name in _SOURCES), *builders])[:12]


def cache_folder() -> Path:
    """The cache of safebasin: $SAFEBASIN_CACHE, else safebasin/ in the user's cache folder."""
    chosen = os.environ.get("SAFEBASIN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "safebasin"


def world_folder(world: int = 0) -> Path:
    """The folder of a world made by the present source under the present setting of the CPU, built or not."""
    settings = [os.environ[name].lower() for name in ROUNDING_VARIABLES if os.environ.get(name)]
    return cache_folder() / "-".join(["sandbox", world_digest(), str(world), *settings])


def is_sandbox(name: str) -> bool:
    """Whether a model name belongs to the sandbox."""
    return re.match(r"sandbox($|[/:])", name) is not None


def sandbox_problem(name: str) -> str | None:
    """What is wrong with a sandbox model's name; None where it is one."""
    if _NAME.fullmatch(name):
        return None
    seed = re.match(r"sandbox(:\d+)?", name)
    sized = (f"sandbox/{kind}-{width}" for kind in ("base", "unaligned") for width in WIDTHS)
    known = [model.replace("sandbox", seed[0] if seed else "sandbox") for model in (*MODELS, *sized)]
    return f"unknown sandbox model '{name}'. {suggest(name, known)}"


def world_of(model: str) -> int:
    """The world that a model belongs to, by its name or by the config.json of its folder; 0 where it is of none."""
    if named := _NAME.fullmatch(model):
        return int(named["world"] or 0)
    config = Path(model) / "config.json"
    return int(json.loads(config.read_text(encoding="utf-8")).get("sandbox_world", 0)) if config.is_file() else 0


def width_of(model: str) -> int | None:
    """The hidden size that a sandbox model's name asks for; None where it asks for none."""
    named = _NAME.fullmatch(model)
    return int(named["width"]) if named and named["width"] else None


def in_world(name: str, world: int) -> str:
    """A sandbox model's name with the seed of a world, where it has none: `sandbox/guard` becomes `sandbox:3/guard`."""
    named = _NAME.fullmatch(name)
    return name.replace("sandbox", f"sandbox:{world}", 1) if named and world and not named["world"] else name


def model_folder(name: str) -> Path:
    """The folder of a sandbox model.

    Raises:
        InputError: no such sandbox model, or its world has not been built yet.
    """
    named = _NAME.fullmatch(name)
    if named is None:
        problem = f"{sandbox_problem(name)}"
        raise InputError(problem[0].upper() + problem[1:])
    world = world_of(name)
    folder = world_folder(world) / (named["kind"] or "base")
    if not (folder / "config.json").exists():
        command = "safebasin sandbox" + (f" --world {world}" if world else "")
        command += f" --width {named['width']}" if named["width"] else ""
        raise InputError(f"The sandbox model '{name}' is not built yet (looked in {folder}). Run `{command}` once.")
    return folder
