"""Where the pieces of a run are done, and what each of them gets: `executor`, `resources` and `slurm` in a config."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from .frozen import Frozen, Text

__all__ = ["ExecutorName", "ResourcesConfig", "SlurmConfig", "executor_problem"]

ExecutorName = Literal["local", "ray", "slurm"]
_LIBRARY = {"ray": "ray", "slurm": "submitit"}


def executor_problem(name: str) -> str | None:
    """Why an executor cannot be had here, or None; imports nothing."""
    library = _LIBRARY.get(name)
    if library is None or find_spec(library) is not None:
        return None
    return f"{library} is not installed here. Install safebasin[{name}] wherever it runs, or use executor: local"


class ResourcesConfig(Frozen):
    """What a worker of `executor: ray` or `slurm` gets, and how often a piece of work may lose one."""

    cpus: PositiveInt = 1
    """Cores of each worker."""
    gpus: Annotated[float, Field(ge=0)] = 0
    """GPUs of each worker; Ray takes fractions, which then share a GPU's memory without a fence."""
    memory: PositiveFloat | None = None
    """GB of main memory of each worker; None asks for none by number."""
    workers: PositiveInt = 1
    """Among which the checkpoints of a base model are shared out to answer, and the responses to a judge that is a
    model. Each loads the model once; with 1 the engine of a base lives on one worker."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a piece of work is begun again, on another worker, after its worker or the node died."""


class SlurmConfig(Frozen):
    """How `executor: slurm` asks for its jobs; submitit writes and submits them."""

    cluster: Literal["slurm", "local", "debug"] = "slurm"
    """`local` takes processes of this machine in place of Slurm's jobs, and `debug` this process: to try a config."""
    partition: Text | None = None
    """None is the cluster's own default."""
    account: Text | None = None
    """That the hours are counted to."""
    hours: PositiveFloat = 24.0
    """After which Slurm ends a job; what it has done is kept, and the piece is begun again (`resources.retries`)."""
    setup: tuple[Text, ...] = ()
    """Lines of shell before a job's Python: modules to load, variables to set."""
    additional: dict[Text, Text | int] = Field(default_factory=dict)
    """Further `#SBATCH` settings by name, such as `{qos: high, constraint: h100}`."""
