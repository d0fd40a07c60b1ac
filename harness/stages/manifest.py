"""manifest.json: on what, with what and when a run was made."""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...results.export import replace_text
from .cpu import cpu_facts, processor

__all__ = ["note_judges", "write_manifest"]

_PACKAGE = Path(__file__).resolve().parents[2]


def _git(*arguments: str) -> str | None:
    """What git says of the package's own checkout, or None outside one."""
    try:
        done = subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments], capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _hardware() -> dict[str, Any]:
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "cpu": cpu_facts(),
        "gpus": gpus,
    }


def write_manifest(path: Path, facts: Mapping[str, Any]) -> None:
    """Writes the manifest: versions, hardware and git state of this process, and the run's own `facts`."""
    commit = _git("rev-parse", "HEAD")
    about = {
        "schema_version": 1,
        "written": now(),
        "safebasin": version("safebasin"),
        "git": {"commit": commit, "dirty": bool(_git("status", "--porcelain"))} if commit else None,
        "python": sys.version.split()[0],
        "packages": dict(sorted((found.metadata["Name"], found.version) for found in distributions())),
        "hardware": _hardware(),
        **facts,
    }
    replace_text(path, json.dumps(about, indent=1) + "\n")


def note_judges(path: Path, identities: Sequence[str], spent: Mapping[str, Any]) -> None:
    """Notes in a finished run's manifest that further judges have judged it.

    Args:
        path: of the manifest; where there is none, nothing is noted: the run is not finished.
        identities: of these judges.
        spent: what those on other machines were sent and used, by identity.

    Raises:
        InputError: the manifest is no JSON, or cannot be written.
    """
    if not path.is_file():
        return
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}). Run `safebasin run` again to write it anew.") from error
    judges = [*dict.fromkeys([*about.get("judges", []), *identities])]
    later = [*about.get("judged_later", []), {"written": now(), "judges": list(identities)}]
    remote = {**about.get("remote_judges", {}), **spent}
    replace_text(
        path, json.dumps({**about, "judges": judges, "judged_later": later, "remote_judges": remote}, indent=1) + "\n"
    )


def now() -> str:
    """The time, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
