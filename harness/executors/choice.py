"""Which executor a config asks for; the others' libraries are not imported."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.model import RunConfig
from .base import Executor
from .cluster import Cluster
from .local import Local

__all__ = ["cluster_of", "executor_for"]


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
        from .remote import Remote

        executor = Remote(cluster_of(config, folder))
    try:
        yield executor
    finally:
        executor.close()


def cluster_of(config: RunConfig, folder: Path) -> Cluster:
    """The cluster that a config names.

    Raises:
        InputError: its library is not installed, or it cannot be reached.
    """
    if config.executor == "ray":
        from .ray_cluster import RayCluster

        return RayCluster(config.resources)
    from .slurm import SlurmCluster

    return SlurmCluster(config.resources, config.slurm, folder, config.name)
