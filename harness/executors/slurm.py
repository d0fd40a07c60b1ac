"""`executor: slurm`: pieces are jobs of Slurm, which submitit writes, submits and looks after."""

from pathlib import Path
from typing import Any

from ...errors import InputError
from ..config.resources import ResourcesConfig, SlurmConfig, executor_problem
from .cluster import Died, Work
from .work import Outcome

__all__ = ["SlurmCluster"]

FOLDER = "slurm"
"""Folder below the run's for submitit's scripts and the output of jobs."""


class SlurmCluster:
    """Each piece is a job of one task on one node.

    Raises:
        InputError: submitit is not installed, there is no Slurm here, or it refuses the settings.
    """

    def __init__(self, resources: ResourcesConfig, slurm: SlurmConfig, folder: Path, name: str) -> None:
        if problem := executor_problem("slurm"):
            raise InputError(f"{problem}.")
        import submitit

        self._submitit, self._name, self.notice = submitit, name, ""
        self.pause = 2.0 if slurm.cluster == "slurm" else 0.1
        try:
            self._executor = submitit.AutoExecutor(folder=folder.resolve() / FOLDER / "%j", cluster=slurm.cluster)
            self._executor.update_parameters(**job_settings(resources, slurm))
        except (RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"executor: slurm cannot be had here: {error} (slurm.cluster={slurm.cluster})") from error

    def send(self, name: str, work: Work, *given: Any) -> Any:
        """See `Cluster`.

        Raises:
            InputError: Slurm refuses the job.
        """
        self._executor.update_parameters(name=f"{self._name}: {name}")
        try:
            return self._executor.submit(work, *given)
        except (self._submitit.core.utils.FailedJobError, self._submitit.core.utils.FailedSubmissionError) as error:
            raise InputError(f"Slurm refuses the job '{name}': {' '.join(str(error).split())[:400]}") from error

    def outcome(self, handle: Any) -> Outcome | None:
        """See `Cluster`."""
        if not handle.done():
            return None
        try:
            found: Outcome = handle.result()
        except self._submitit.core.utils.UncompletedJobError as error:
            raise Died(f"job {handle.job_id} ended as {handle.state}: {' '.join(str(error).split())[:200]}") from error
        return found

    def drop(self, handle: Any) -> None:
        """See `Cluster`."""
        handle.cancel(check=False)

    def close(self) -> None:
        """See `Cluster`; nothing is held."""


def job_settings(resources: ResourcesConfig, slurm: SlurmConfig) -> dict[str, Any]:
    """What submitit is told of every job."""
    settings: dict[str, Any] = {
        "timeout_min": max(1, round(60 * slurm.hours)),
        "nodes": 1,
        "tasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        "gpus_per_node": int(resources.gpus) or None,
        "mem_gb": resources.memory,
        "slurm_partition": slurm.partition,
        "slurm_account": slurm.account,
        "slurm_setup": list(slurm.setup) or None,
        "slurm_additional_parameters": dict(slurm.additional) or None,
    }
    return {key: value for key, value in settings.items() if value is not None}
