"""What `geometry influence` and `geometry trajectory` look at: a tuned adapter and the rows of its restoration."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...errors import InputError
from ...registry import suggest
from ...restore.models.checkpoint import kind_of
from ...tasks.sandbox.location import is_sandbox, world_of
from ..store.digests import digest_of
from ..terminal.progress import Bars
from .geometry_pair import BASE, TUNED, compared, pair_rows
from .geometry_rows import rows_of_sets

if TYPE_CHECKING:
    from ...restore.config.settings import RestoreConfig
    from ...restore.restoration.data import RestorationData

__all__ = ["ROLES", "Case", "Given", "case_of", "config_of"]

ROLES = ("harmful", "task")
"""Names of the sets: prompts to refuse again, and rows of what was fine-tuned on."""


@dataclass(frozen=True)
class Given:
    """What is looked at."""

    base: str
    tuned: Path | None
    data: Mapping[str, str]
    """Role -> source; empty for a sandbox base's own rows."""
    columns: Mapping[str, Mapping[str, str]]
    rows: int = 1000
    """Of each set, at most."""
    batch_size: int = 64
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None


@dataclass(frozen=True)
class Case:
    """A tuned model with the rows of its restoration."""

    model: Any
    """The PEFT model, its adapter trainable."""
    tokenizer: Any
    data: "RestorationData"
    facts: Mapping[str, Any]
    """Digests of models and rows, for the manifest."""


def config_of(given: Given, preset: str, changes: Mapping[str, Any]) -> "RestoreConfig":
    """The settings of the restoration that is looked at.

    Raises:
        InputError: there is no such preset or setting, or a value is out of its range.
    """
    from ...restore.config.settings import RestoreConfig

    known = [field.name for field in fields(RestoreConfig)]
    for key in changes:
        if key not in known:
            raise InputError(f"--set {key}: the restoration has no such setting. {suggest(key, known)}")
    return RestoreConfig.from_preset(
        preset, **{"seed": given.seed, "micro_batch_size": given.batch_size, **dict(changes)}
    )


def case_of(given: Given, config: "RestoreConfig", shown: Bars) -> Case:
    """Loads the adapter on its base and splits the rows as `safebasin restore` does; in the sandbox, the pair's own.

    Raises:
        InputError: the models or rows cannot be had, or the tuned model is no adapter.
    """
    from ...restore.models.loading import load_tuned

    models = compared(given.base, given.tuned, None, shown)
    tuned = models.checkpoints[TUNED]
    if kind_of(tuned) == "full":
        raise InputError(
            f"--tuned {tuned} is a whole model, and what is looked at here are updates of an adapter. Give the folder "
            "of a LoRA adapter."
        )
    world = world_of(models.base.location) if is_sandbox(given.base) else None
    data = _rows(given, config, world, shown)
    model, tokenizer = load_tuned(models.base.location, tuned, None, given.dtype, given.device, trainable=True)
    digests = {name: digest for name, digest in models.digests().items() if name in (BASE, TUNED)}
    told = {
        name: {"rows": len(getattr(data, name)), "digest": digest_of([dict(row) for row in getattr(data, name)])}
        for name in data.__dataclass_fields__
    }
    return Case(model, tokenizer, data, {"models": digests, "data": told})


def _rows(given: Given, config: "RestoreConfig", world: int | None, shown: Bars) -> "RestorationData":
    from ...restore.restoration.data import split

    if not given.data and world is not None:
        return pair_rows(world)
    if given.data and set(given.data) != set(ROLES):
        raise InputError(
            f"--data names the sets {', '.join(given.data)}; a restoration has {' and '.join(ROLES)}. Give "
            "--data harmful=requests.csv --data task=rows.jsonl."
        )
    columns = {name: dict(own) for name, own in given.columns.items()}
    rows, said = rows_of_sets(dict(given.data), columns, given.rows, world)
    for line in said:
        shown.say(escape(line))
    return split(rows["harmful"], rows["task"], None, None, config)
