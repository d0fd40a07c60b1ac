"""Ctrl-C takes effect between forward passes only, where whatever is half done is undone reliably."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["interrupts_between_passes"]


@contextmanager
def interrupts_between_passes(model: Any) -> Iterator[None]:
    """Holds SIGINT back until the next forward pass begins, or the block ends.

    Python raises KeyboardInterrupt at any instruction, also inside a `finally` that puts parameters back. A forward
    pass begins where everything that must be undone is guarded. Outside the main thread, and where SIGINT is ignored,
    nothing is held.

    Args:
        model: a transformers or PEFT model; its input embeddings carry a hook for the block.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    held: list[int] = []

    def pass_on(*_: Any) -> None:
        if held:
            before(held.pop(), None)

    embeddings = model.get_input_embeddings()
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    hook = embeddings.register_forward_pre_hook(pass_on)
    try:
        yield
    finally:
        hook.remove()
        signal.signal(signal.SIGINT, before)
        pass_on()
