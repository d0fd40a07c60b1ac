"""safebasin measures what fine-tuning did to a model's safety, repairs it, and shows whether the repair worked.

`restore` repairs a LoRA adapter in memory, `repair` does so by any post-hoc method; `run` makes a whole leaderboard
from a config that `load_config` read; `load_run` reads the leaderboard of a finished run, `compare` sets two of its
methods against each other. Each is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .harness.config.load import load_config
    from .harness.run import run
    from .harness.stages.comparing import compare
    from .harness.stages.loaded import load_run
    from .restore.api import RestoreResult, restore
    from .restore.config.settings import RestoreConfig
    from .restore.repair import repair

__all__ = ["RestoreConfig", "RestoreResult", "compare", "load_config", "load_run", "repair", "restore", "run"]

_HOME = {
    "RestoreConfig": "restore.config.settings",
    "RestoreResult": "restore.api",
    "compare": "harness.stages.comparing",
    "load_config": "harness.config.load",
    "load_run": "harness.stages.loaded",
    "repair": "restore.repair",
    "restore": "restore.api",
    "run": "harness.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'safebasin' has no attribute '{name}'")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
