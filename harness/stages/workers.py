"""Work shared out to processes forked off this one: they know all that it knows, and ask it for what it keeps.

For models so small that one core is busy with Python alone; on the CPU only, as CUDA does not survive a fork. A worker
computes with one thread, as those of PyTorch's data loader do, so it never misses threads that a fork leaves behind.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

from ...errors import InputError, StorageError

__all__ = ["Ask", "in_processes", "processes_for"]

Ask = Callable[..., Any]
"""Answers what a worker asks, in the parent."""
Work = Callable[[Any, Ask], Any]
"""Called in a worker with an item and its way to ask; what it returns must be picklable."""
SMALL = 64 * 2**20
"""Bytes of weights up to which matrices are too small for several threads."""
_KILLED = "The process that worked on it was killed. Is there too little memory? With processes=1 it needs less."


def processes_for(items: int, asked: int | None, weights: int | None, device: str) -> int:
    """How many processes share some work; 1 is this one alone.

    Args:
        items: of work.
        asked: by the user; None takes as many as PyTorch would use threads if the weights are `SMALL`, else one.
        weights: bytes that each process would load; None where nobody knows.
        device: where the model computes.
    """
    import torch

    if device != "cpu" or not sys.platform.startswith("linux") or torch.cuda.is_available():
        return 1
    small = weights is not None and weights <= SMALL
    chosen = asked or (torch.get_num_threads() if small else 1)
    return max(1, min(items, chosen))


def in_processes(work: Work, items: Iterable[Any], processes: int, ask: Ask) -> Iterator[tuple[int, Any]]:
    """Does the work in processes, one item at a time in each; they end with the loop over this, and with the parent.

    Args:
        work: forked with all that it refers to; what it changes stays in its process.
        items: picklable; each is taken when a process is free for it.
        processes: how many.
        ask: called here with what `work` asks; what it raises, `work` sees raised.

    Yields:
        Number of an item, and what the work returned or the exception that it raised, as they finish.
    """
    waiting = enumerate(items)
    busy: dict[Any, int] = {}
    started: list[Any] = []
    try:
        for numbered in islice(waiting, processes):
            _give(_started(work, started), numbered, busy)
        while busy:
            for worker in wait(list(busy)):
                kind, content = _received(worker)
                if kind == "ask":
                    _send(worker, _tried(ask, *content))
                    continue
                yield busy.pop(worker), content
                for numbered in islice(waiting, 1):
                    _give(_started(work, started) if kind == "killed" else worker, numbered, busy)
    finally:
        for process in started:
            process.kill()
            process.join()


def _give(worker: Any, numbered: tuple[int, Any], busy: dict[Any, int]) -> None:
    busy[worker], item = numbered
    _send(worker, item)


def _send(worker: Any, what: Any) -> None:
    with suppress(BrokenPipeError):  # of a worker that was killed; `_received` tells
        worker.send(what)


def _received(worker: Any) -> tuple[str, Any]:
    try:
        kind, content = worker.recv()
    except (EOFError, ConnectionResetError):
        return "killed", InputError(_KILLED)
    return str(kind), content


def _started(work: Work, started: list[Any]) -> Connection:
    """The parent's end of the line to a new worker."""
    context = get_context("fork")
    here, there = context.Pipe()
    started.append(context.Process(target=_serve, args=(work, there), daemon=True))
    started[-1].start()
    there.close()
    return here


def _serve(work: Work, parent: Connection) -> None:
    """The life of a worker: one item after another, until it is killed."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)

    def ask(*words: Any) -> Any:
        parent.send(("ask", words))
        answer = parent.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    while True:
        parent.send(("done", _tried(work, parent.recv(), ask)))


def _end_with_parent() -> None:
    """A worker must not hold the locks of a run that was killed."""
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _tried(function: Callable[..., Any], *given: Any) -> Any:
    """What a function returns, or what it raised: the same message in an exception that can be sent."""
    try:
        return function(*given)
    except Exception as error:  # noqa: BLE001  # it is the other process's to decide what to do about it
        text = str(error) or type(error).__name__
        told = next((kind for kind in (InputError, StorageError) if isinstance(error, kind)), RuntimeError)
        sent = told(text)
        sent.add_note("".join(traceback.format_exception(error)))
        return sent
