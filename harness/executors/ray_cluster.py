"""`executor: ray`: pieces are tasks of a Ray cluster, the one of RAY_ADDRESS or one that is started on this machine."""

import os
from typing import Any

from ...errors import InputError
from ..config.resources import ResourcesConfig, executor_problem
from .cluster import Died, Work
from .work import Outcome

__all__ = ["RayCluster"]

LOCAL_STORE = 100 << 20
"""Bytes of shared memory of a Ray that is started here: nothing large goes through it."""
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
"""No report of use to Ray's authors."""


class RayCluster:
    """Each piece is a task that asks for its cores, GPUs and memory; Ray places it, and tells of its death.

    Raises:
        InputError: Ray is not installed, or cannot be reached.
    """

    pause = 0.1
    notice = ""

    def __init__(self, resources: ResourcesConfig) -> None:
        if problem := executor_problem("ray"):
            raise InputError(f"{problem}.")
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray, self._mine = ray, not ray.is_initialized()
        if self._mine:
            self._begin()
        self._needs: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        if resources.memory is not None:
            self._needs["memory"] = int(resources.memory * 1e9)
        told: Any = ray
        if not any(self._suffices(node["Resources"]) for node in told.nodes() if node["Alive"]):
            self.notice = (
                f"No node of the Ray cluster has {self._asked}, which `resources` ask for: everything waits until one "
                "with so much joins."
            )

    def _begin(self) -> None:
        """Joins the cluster of RAY_ADDRESS, or starts one here."""
        address = os.environ.get("RAY_ADDRESS")
        own: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": LOCAL_STORE}
        try:
            self._ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at RAY_ADDRESS={address}" if address else "on this machine"
            raise InputError(f"No Ray cluster can be had {where}: {str(error).splitlines()[0]}") from error

    @property
    def _asked(self) -> str:
        names = {"num_cpus": "CPUs", "num_gpus": "GPUs", "memory": "bytes of memory"}
        return ", ".join(f"{amount:g} {names[name]}" for name, amount in self._needs.items() if amount)

    def _suffices(self, has: dict[str, float]) -> bool:
        names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
        return all(has.get(names[name], 0) >= amount for name, amount in self._needs.items())

    def send(self, name: str, work: Work, *given: Any) -> Any:
        """See `Cluster`; retries are the driver's, which merges what a dead worker has done first."""
        task = self._ray.remote(work).options(
            name=name, max_retries=0, scheduling_strategy="SPREAD", **self._needs
        )  # fmt: skip
        return task.remote(*given)

    def outcome(self, handle: Any) -> Outcome | None:
        """See `Cluster`."""
        ready, _ = self._ray.wait([handle], timeout=0)
        if not ready:
            return None
        try:
            found: Outcome = self._ray.get(handle)
        except self._ray.exceptions.RayError as error:
            raise Died(_first(error)) from error
        return found

    def drop(self, handle: Any) -> None:
        """See `Cluster`."""
        self._ray.cancel(handle, force=True)

    def close(self) -> None:
        """See `Cluster`; a cluster that this process did not join is left as it was."""
        if self._mine:
            self._ray.shutdown()


def _first(error: Exception) -> str:
    """Of an error in the worker's own code, that one; of a death, Ray's first words on it."""
    error = getattr(error, "cause", None) or error
    line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {line}" if line else type(error).__name__
