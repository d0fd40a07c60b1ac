"""`safebasin doctor`: what this machine has for a run, what it lacks, and the command that mends it."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from ...tasks.sandbox.location import cache_folder, world_digest
from ...vllm_setup import vllm_problem, vllm_version
from ..stages.cpu import cpu_facts, processor
from ..stages.memory import available_memory
from ..stages.models import resolve

__all__ = ["Finding", "examine", "examine_model", "table"]

State = Literal["ok", "note", "missing", "broken"]
PACKAGES = ("torch", "transformers", "peft", "lm_eval", "datasets")
LLAMA_GUARD = "meta-llama/Llama-Guard-3-1B"
"""The smallest judge that is gated: whoever may read it may read the others."""
LITTLE_DISK = 5 << 30
"""Bytes below which a cache soon has no room for a model."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    state: State = "ok"
    """`note` should be known; only some runs need what is `missing`, and all of them what is `broken`."""
    mend: str = ""
    """What to do about it."""


def examine() -> Iterator[Finding]:
    """Looks at versions, devices, the CPU, memory, caches, and what optional parts need. Opens no connection."""
    yield Finding("safebasin", f"{version('safebasin')}, Python {sys.version.split()[0]}, {platform.platform()}")
    yield Finding("packages", ", ".join(f"{name} {version(name)}" for name in PACKAGES))
    yield from _devices()
    yield from _caches()
    yield _vllm()
    yield _module("gguf", "reads models from .gguf files", "pip install 'safebasin[gguf]'")
    yield _module("ray", "executor: ray can be had", "pip install 'safebasin[ray]'")
    yield _module("submitit", "executor: slurm can be had", "pip install 'safebasin[slurm]'")
    yield _module("bitsandbytes", "reads models in 4 and 8 bits", "pip install bitsandbytes (needs a CUDA device)")
    yield _llama_guard()


def examine_model(model: str, adapter: Path | None) -> Iterator[Finding]:
    """What the gate finds of a model, and of an adapter on it."""
    from ...restore.models import gate
    from ..terminal.quiet import quiet

    quiet()
    states: dict[gate.State, State] = {"ok": "ok", "note": "note", "refused": "broken"}
    for item in gate.examine(resolve(model).location, adapter).items:
        yield Finding(item.check, item.said, states[item.state])


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield Finding(f"cuda:{index}", f"{about.name}, {decimal(about.total_memory)}")
    if not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        yield Finding("cuda", f"none seen; torch is {built}", "missing", "the CPU is used; models of 7B need a GPU")
    facts = cpu_facts()
    rounding = ", ".join(f"{name}={value}" for name, value in facts["environment"].items()) or "no setting changes it"
    yield Finding("cpu", f"{processor()}, {os.cpu_count()} cores, torch uses {facts['torch']['threads']} threads")
    yield Finding(
        "rounding",
        f"torch {facts['torch']['capability']}, oneDNN {facts['onednn']['isa']}, MKL {facts['mkl']['isa']}, "
        f"BLAS {facts['blas']}; {rounding}",
    )
    yield Finding("memory", f"{decimal(available_memory())} free")


def _caches() -> Iterator[Finding]:
    folder = cache_folder()
    at = next(path for path in (folder, *folder.parents) if path.exists())
    worlds = len(list(folder.glob(f"sandbox-{world_digest()}-*")))
    room = shutil.disk_usage(at).free
    text = f"{folder}, {decimal(room)} free, {worlds} sandbox worlds of this version"
    if not os.access(at, os.W_OK):
        yield Finding("cache", text, "broken", f"{at} cannot be written: set SAFEBASIN_CACHE to a folder that can be")
    elif room < LITTLE_DISK:
        yield Finding("cache", text, "missing", "free some room, or set SAFEBASIN_CACHE to a folder on another disk")
    else:
        yield Finding("cache", text)
    from huggingface_hub import constants

    offline = ", offline" if constants.HF_HUB_OFFLINE else ""
    yield Finding("hub cache", f"{constants.HF_HUB_CACHE}{offline}")


def _vllm() -> Finding:
    problem = vllm_problem(None)
    if problem is None:
        return Finding("vllm", f"{vllm_version()}: engine vllm can be had")
    return Finding("vllm", "not installed: runs use transformers", "missing", problem.partition(". ")[2] + ".")


def _module(name: str, use: str, command: str) -> Finding:
    try:
        return Finding(name, f"{version(name)}: {use}")
    except PackageNotFoundError:
        return Finding(name, f"not installed: {use}", "missing", command)


def _llama_guard() -> Finding:
    from huggingface_hub import constants, get_token, try_to_load_from_cache

    if isinstance(try_to_load_from_cache(LLAMA_GUARD, "config.json"), str):
        return Finding("llama_guard", f"{LLAMA_GUARD} is in the hub cache")
    access = "a token for the hub is set" if get_token() else "there is no token for the hub"
    steps = f"accept the licence at {constants.ENDPOINT}/{LLAMA_GUARD}"
    steps += "" if get_token() else ", then `hf auth login`"
    return Finding("llama_guard", f"not in the hub cache; {access}", "missing", f"{steps}; or give a folder as `model`")


def table(findings: list[Finding]) -> Table:
    """The findings, one row each."""
    shown = Table()
    for column in ("", "what", "found", "what to do"):
        shown.add_column(column, overflow="fold")
    colours = {"ok": "green", "note": "yellow", "missing": "yellow", "broken": "red"}
    for finding in findings:
        shown.add_row(
            f"[{colours[finding.state]}]{finding.state}[/]", *map(escape, (finding.what, finding.found, finding.mend))
        )
    return shown
