"""The CPU as the libraries that compute see it: another instruction set rounds otherwise and makes another world."""

import json
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...results.export import replace_text
from ...tasks.sandbox.location import cache_folder
from ..store.digests import digest_of

__all__ = ["cpu_facts", "processor", "read_verbose"]

VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
"""Settings that change what is computed, or how it is rounded."""
PROBE = "import torch; a = torch.ones(8, 8); a @ a; torch.backends.mkldnn.is_available() and torch.relu(a.to_mkldnn())"
"""The least that makes MKL and oneDNN say, under their verbose settings, what they use."""
SECONDS = 60
"""After which a probe is given up; it takes as long as importing torch, 1 to 3 seconds."""


def cpu_facts() -> dict[str, Any]:
    """What of the CPU decides rounding; null where it cannot be found out.

    Returns:
        `torch`: capability (AVX2, AVX512, DEFAULT, ...) and threads; `onednn` and `mkl`: version, isa, and MKL's cnr
        (conditional numerical reproducibility: OFF, COMPATIBLE, ...); `blas`, which torch was built with;
        `environment`: those of `VARIABLES` that are set.
    """
    import torch

    config = torch.__config__.show()
    probed = _probe()
    return {
        "torch": {"capability": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()},
        "onednn": {"version": _found(r"MKL-DNN v([\w.]+)", config), "isa": probed.get("onednn_isa")},
        "mkl": {
            "version": _found(r"oneAPI Math Kernel Library Version (\S+?)-", config),
            "isa": probed.get("mkl_isa"),
            "cnr": probed.get("mkl_cnr"),
        },
        "blas": _found(r"BLAS_INFO=(\w+)", config),
        "environment": _environment(),
    }


def processor() -> str:
    """The processor's name."""
    return _cpuinfo().get("model name") or platform.processor()


def read_verbose(text: str) -> dict[str, str | None]:
    """What the verbose output of both libraries says: onednn_isa, mkl_isa, mkl_cnr."""
    return {
        "onednn_isa": _found(r"^(?:one)?dnn(?:l)?_verbose,.*\bcpu,isa:(.+)$", text),
        "mkl_isa": _found(
            r"^MKL_VERBOSE .* architecture (.+?)(?: enabled processors| processors)?, \w+ [\d.]+GHz", text
        ),
        "mkl_cnr": _found(r"^MKL_VERBOSE .*\bCNR:(\S+)", text),
    }


def _found(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.MULTILINE)
    return found[1].strip() if found else None


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@cache
def _cpuinfo() -> dict[str, str]:
    """What the kernel says of the first processor; empty where it says nothing."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


@cache
def _probe() -> dict[str, str | None]:
    """Asks the libraries in a process of its own; once per machine and setting, as the answer is kept in the cache."""
    import torch

    about = [processor(), _cpuinfo().get("flags"), torch.__version__, torch.__config__.show(), _environment()]
    kept = cache_folder() / f"cpu-{digest_of(about)[:12]}.json"
    try:
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        found = read_verbose(_verbose_output())
    if any(found.values()):
        _keep(kept, found)
    return found


def _verbose_output() -> str:
    verbose = {"ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "MKL_VERBOSE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", PROBE]
    try:
        done = subprocess.run(
            command, env={**os.environ, **verbose}, capture_output=True, text=True, errors="replace", timeout=SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _keep(path: Path, found: dict[str, str | None]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(found) + "\n")
    except (OSError, InputError):
        return  # a cache that cannot be written costs the next run three seconds, and no run its result
