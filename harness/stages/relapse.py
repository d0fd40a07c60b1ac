"""Fine-tuning of finished checkpoints again, for `tasks.relapse`: trained once, kept until its answers are stored."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...restore.method import Tick
from ...tasks.sandbox.location import world_of
from ..config.data import rows_for
from ..config.model import RunConfig
from ..config.naming import slug
from ..config.relapse import RelapseConfig
from ..plan import Row
from ..store.digests import checkpoint_digest, code_digest, digest_of
from ..store.files import finished_folder
from .build import Checkpoint
from .leaks import check_leaks
from .loading import free_memory, placement
from .models import ModelSource
from .peak import measured

__all__ = ["Attack", "Attacked", "attack_folder", "drop_weights", "load_attacked", "relapse_rows", "weights_folder"]

ABOUT = "relapse.json"
"""What a fine-tuning was made from and came to; it stays when the weights go."""
Needed = Callable[[Mapping[int, str]], Collection[int]]
"""(steps -> digest of the checkpoint after them) -> the steps whose checkpoints have answers to give still."""


@dataclass(frozen=True)
class Attacked:
    """What a fine-tuning came to."""

    key: str
    """Digest of all that decides the weights."""
    digests: Mapping[int, str]
    """Steps -> digest of the checkpoint after them."""
    minutes: float
    peak_gb: float | None


@dataclass(frozen=True)
class Attack:
    """One fine-tuning of one checkpoint."""

    name: str
    """As in `RelapseConfig.attacks`."""
    settings: RelapseConfig
    config: RunConfig
    model: ModelSource
    """The base."""
    start: Checkpoint | None
    """None is the base as it is."""
    seed: int
    folder: Path
    """Where it is kept."""

    def made(self, needed: Needed, tick: Tick) -> Attacked:
        """Trains, unless that was done with the very same things and the weights that are needed are there.

        Args:
            needed: which those are.
            tick: progress.

        Raises:
            InputError: checkpoint or rows are unusable, requests of them are measured, or the training diverges.
        """
        rows = relapse_rows(self.name, self.settings, self.config, self.model)
        spec = self._spec(rows)
        found = load_attacked(self.folder)
        if found is None or found.key != digest_of(spec):
            return self._trained(rows, spec, tick)
        whole = [_is_whole(weights_folder(self.folder, s), found.digests[s]) for s in needed(found.digests)]
        return found if all(whole) else self._trained(rows, spec, tick)

    def _spec(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Everything that decides what the checkpoint becomes."""
        return {
            "base": self.model.digest,
            "files": dict(self.model.files),
            "start": self.start.digest if self.start else None,
            "steps": list(self.settings.steps),
            "finetune": asdict(self.settings.training(self.config.finetune.training())),
            "lora": self.config.finetune.lora(),
            "seed": self.seed,
            "dtype": self.config.dtype,
            "date": str(self.config.date),
            "think_end_token": self.config.think_end_token,
            "data": digest_of(rows),
            "code": _code(),
        }

    def _trained(self, rows: list[dict[str, Any]], spec: Mapping[str, Any], tick: Tick) -> Attacked:
        from ...restore.finetuning.further import tune_further

        config = self.config
        with finished_folder(self.folder) as scratch:
            folders = {steps: weights_folder(scratch, steps) for steps in self.settings.steps[1:]}
            with measured() as cost:
                tune_further(
                    self.model.location, self.start.folder if self.start else None, rows, folders,
                    self.settings.training(config.finetune.training()), config.finetune.lora(), self.seed, tick,
                    config.dtype, placement(config),
                )  # fmt: skip
            about = {
                "key": digest_of(spec),
                "digests": {steps: checkpoint_digest(folder) for steps, folder in folders.items()},
                "minutes": cost.minutes,
                "peak_gb": cost.peak_gb,
                "made_from": spec,
            }
            (scratch / ABOUT).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        free_memory()
        found = load_attacked(self.folder)
        if found is None:
            raise InputError(f"{self.folder} vanished while it was read. Run again, with nothing else writing there.")
        return found


def relapse_rows(name: str, settings: RelapseConfig, config: RunConfig, model: ModelSource) -> list[dict[str, Any]]:
    """The rows of a fine-tuning.

    Raises:
        InputError: they cannot be had, or the run's tasks measure requests of the harmful ones.
    """
    number, world = settings.attacks[name], world_of(model.location)
    if number is None:
        return rows_for("task_train", config, world)
    harmful = rows_for("relapse", config, world)[:number]
    if len(harmful) < number:
        raise InputError(f"tasks.relapse.harmful asks for {number} rows, and data.relapse has {len(harmful)}.")
    check_leaks({"relapse": harmful}, config, model.location)
    return harmful


def attack_folder(folder: Path, row: Row, name: str) -> Path:
    """Where a fine-tuning of a row's checkpoint is kept in a run folder; rows of one checkpoint share it."""
    return folder / "relapses" / f"{row.build or slug(row.model)}-{name}"


def weights_folder(folder: Path, steps: int) -> Path:
    """The checkpoint after so many steps."""
    return folder / f"step-{steps}"


def load_attacked(folder: Path) -> Attacked | None:
    """What is known of a fine-tuning, whether or not its weights are there; None where nothing whole is."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        digests = {int(steps): str(digest) for steps, digest in about["digests"].items()}
        return Attacked(about["key"], digests, about["minutes"], about["peak_gb"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is made again
        return None


def drop_weights(folder: Path, steps: int) -> None:
    """Removes a checkpoint that has answered: what was trained on harmful rows is not left lying about."""
    shutil.rmtree(weights_folder(folder, steps), ignore_errors=True)


def _is_whole(folder: Path, digest: str) -> bool:
    try:
        return checkpoint_digest(folder) == digest
    except (InputError, OSError):
        return False


@cache
def _code() -> str:
    return code_digest("restore/finetuning", "restore/losses", "restore/models")
