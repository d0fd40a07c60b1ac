"""One fine-tuning by several processes of this machine: one for each GPU, or through gloo on a CPU."""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import InputError, sendable
from ...restore.method import BuildContext, Built, Method, Tick
from ..config.model import RunConfig

__all__ = ["SHARED", "build_in_ranks"]

SHARED = ("lora", "full")
"""Methods whose training is the trainer's own loop, which processes can share."""
_POLL = 0.2


def build_in_ranks(method: Method, context: BuildContext, config: RunConfig) -> Built:
    """Lets `parallel.processes` processes build together; the first one saves.

    Args:
        method: one of `SHARED`.
        context: of the build; its `tick` hears of the first process.
        config: of the run.

    Raises:
        InputError: as the method's own `build`; or a process died.
    """
    from torch.multiprocessing import get_context
    from torch.multiprocessing.spawn import start_processes

    count = config.parallel.processes
    told = get_context("spawn").SimpleQueue()
    quiet = replace(context, tick=_silent)
    with TemporaryDirectory() as scratch:
        given = (count, _free_port(), method, quiet, config, scratch, told)
        started = start_processes(_rank, args=given, nprocs=count, join=False, start_method="spawn")
        found: list[Any] = []
        try:
            while not started.join(timeout=_POLL):
                found += _heard(told, context.tick)
        except Exception as error:  # torch's own, of a process that failed or died
            raise _reason(found + _heard(told, context.tick), error) from error
        found += _heard(told, context.tick)
    (built,) = (content for kind, content in found if kind == "built")
    return built  # type: ignore[no-any-return]  # what comes out of a queue is untyped


def _silent(what: str, done: int, total: int) -> None:
    """Stands in where a real one cannot be sent."""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _heard(told: Any, tick: Tick) -> list[tuple[str, Any]]:
    """What came meanwhile; progress is shown at once."""
    found = []
    while not told.empty():
        kind, content = told.get()
        if kind == "tick":
            tick(*content)
        else:
            found.append((kind, content))
    return found


def _reason(found: list[tuple[str, Any]], error: Exception) -> Exception:
    for kind, content in found:
        if kind == "failed":
            return content  # type: ignore[no-any-return]
    return InputError(
        f"One of the processes that fine-tune together died: {str(error).strip().splitlines()[-1]} Is there too little "
        "memory? parallel.fsdp shards what each holds; parallel.processes: 1 trains in one."
    )


def _rank(
    rank: int, count: int, port: int, method: Method, context: BuildContext, config: RunConfig, scratch: str, told: Any
) -> None:
    """The life of one of the processes."""
    from ...restore.models.chat import writing_date
    from ...restore.models.thinking import ending_thinking

    os.environ.update(_environment(rank, count, port))
    first = rank == 0
    output = context.output if first else Path(scratch) / str(rank)
    output.mkdir(parents=True, exist_ok=True)
    tick: Callable[..., None] = (lambda *how: told.put(("tick", how))) if first else _silent
    own = replace(context, output=output, tick=tick, device=_device(rank, config))
    try:
        with writing_date(config.date), ending_thinking(config.think_end_token):
            built = method.build(own)
    except Exception as error:
        told.put(("failed", sendable(error)))
        raise
    if first:
        told.put(("built", built))


def _environment(rank: int, count: int, port: int) -> Mapping[str, str]:
    """By which accelerate and torch find the others."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        # Where no device was named, a CPU without GPUs is meant.
        "ACCELERATE_USE_CPU": "false" if _cuda() else "true",
    }


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _device(rank: int, config: RunConfig) -> str:
    """Where a process loads the model to: a GPU of its own, or the CPU, from which a sharded one is dealt out."""
    sharded = config.parallel.fsdp is not None or config.parallel.deepspeed is not None
    return "cpu" if sharded or config.device == "cpu" or not _cuda() else f"cuda:{rank}"
