"""Which executor a config asks for; the others' libraries are not imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.model import RunConfig
from .base import Executor
from .local import Local

__all__ = ["executor_for"]


@contextmanager
def executor_for(config: RunConfig, folder: Path) -> Iterator[Executor]:
    """The executor of a run, for the length of the block.

    Args:
        config: of the run.
        folder: of the run.

    Raises:
        InputError: what it needs is not installed, or its cluster cannot be reached.
    """
    executor: Executor
    if config.executor == "local":
        executor = Local()
    else:
        from .remote import Remote, cluster_of

        executor = Remote(cluster_of(config, folder))
    try:
        yield executor
    finally:
        executor.close()
