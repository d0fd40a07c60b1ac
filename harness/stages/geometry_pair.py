"""The models that a geometry is taken of: a base, what was made of it, and in the sandbox a pair made for it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...restore.models.checkpoint import kind_of
from ...results.export import replace_text
from ...tasks.sandbox.location import is_sandbox, width_of, world_folder, world_of
from ..config.data import rows_for
from ..config.load import load_config
from ..config.model import RunConfig
from ..plan import make_plan
from ..store.digests import checkpoint_digest, digest_of, weights_code
from ..store.files import finished_folder
from ..terminal.progress import Bars
from .build import build
from .dose import find_dose
from .iterations import iterations_kept, iterations_of
from .models import ModelSource, resolve

if TYPE_CHECKING:
    from ...restore.restoration.data import RestorationData

__all__ = ["BASE", "Compared", "compared", "sandbox_pair"]

BASE, TUNED, RESTORED = "base", "tuned", "restored"
_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "sandbox.yaml"
_KEY = "pair.json"


@dataclass(frozen=True)
class Compared:
    """A base model and checkpoints of it."""

    base: ModelSource
    checkpoints: dict[str, Path]
    """Name -> folder, an adapter or a whole model: `tuned`; where there is a restored one, `iteration 1`, … if they
    were kept, and `restored`."""

    def load(self, name: str, dtype: str, device: str | None) -> Any:
        """One of the models, in eval mode.

        Raises:
            InputError: it cannot be loaded.
        """
        from ...restore.models.checkpoint import load_checkpoint_model

        folder = None if name == BASE else self.checkpoints[name]
        return load_checkpoint_model(self.base.location, folder, None, dtype, device)

    def tokenizer(self) -> Any:
        """That of the tuned model: all of them are asked the same token ids.

        Raises:
            InputError: it cannot be loaded.
        """
        from ...restore.models.loading import load_tokenizer, tokenizer_of

        tuned = self.checkpoints[TUNED]
        whole = kind_of(tuned) == "full"
        return load_tokenizer(str(tuned)) if whole else tokenizer_of(self.base.location, tuned)

    def digests(self) -> dict[str, str]:
        """Name -> digest of the files that decide what each of them says."""
        return {BASE: self.base.digest, **{name: checkpoint_digest(at) for name, at in self.checkpoints.items()}}

    def without_iterations(self) -> "Compared":
        """The same, of a restoration its end alone."""
        ends = {name: at for name, at in self.checkpoints.items() if name in (TUNED, RESTORED)}
        return replace(self, checkpoints=ends)


def compared(base: str, tuned: Path | None, restored: Path | None, shown: Bars) -> Compared:
    """Finds the models; of a sandbox base without a tuned model, makes a tuned and a restored one.

    Args:
        base: sandbox model, folder or hub id.
        tuned: adapter or whole model.
        restored: the same, after a restoration.
        shown: progress.

    Raises:
        InputError: a model cannot be had, or the tuned model is missing.
    """
    if is_sandbox(base):
        from ..sandbox.build import build_model

        build_model(base, lambda name, done, total: shown.update(f"sandbox: {name}", done, total))
    source = resolve(base)
    if tuned is None:
        if not is_sandbox(base):
            raise InputError(f"--tuned is missing: give an adapter, or a whole model, that was made from '{base}'.")
        if restored is not None:
            raise InputError("--restored needs --tuned: give the adapter that it was restored from.")
        tuned, restored = sandbox_pair(source, shown)
    found = {TUNED: tuned}
    if restored is not None:
        found |= {f"iteration {path.name}": path for path in iterations_of(restored)}
        found[RESTORED] = restored
    for folder in found.values():
        kind_of(folder)
    return Compared(source, found)


def sandbox_pair(base: ModelSource, shown: Bars) -> tuple[Path, Path]:
    """The folders of a fine-tuned adapter, and of the restored one, by configs/sandbox.yaml; made once for each base.

    Raises:
        InputError: a model or its rows are unusable.
    """
    world, width = world_of(base.location), width_of(base.name)
    folder = world_folder(world) / (f"pair-{width}" if width else "pair")
    config = _pair_config(world, width)
    base = replace(base, name=config.models[0].id)
    tick = partial(_tick, shown)
    dose = find_dose(config, base, 0, folder / "dose.json", tick)
    if dose.warning:
        shown.say(f"[yellow]warning[/yellow]: {dose.warning}")
    tuned = build(make_plan(config).builds[0], config, base, folder / TUNED, None, tick, dose=dose)
    key = digest_of({"parent": tuned.digest, "code": weights_code()})
    if not _is(folder / RESTORED, key):
        with finished_folder(folder / RESTORED) as scratch:
            _restore(config, base, tuned.folder, world, scratch, shown)
            replace_text(scratch / _KEY, json.dumps({"key": key}) + "\n")
    return tuned.folder, folder / RESTORED


def pair_rows(world: int) -> "RestorationData":
    """The rows that the sandbox's pair is restored on.

    Raises:
        InputError: the rows are unusable.
    """
    from ...restore.methods.curvature import NEEDS
    from ...restore.restoration.data import RestorationData

    config = _pair_config(world)
    rows: dict[str, Sequence[Any]] = {name: rows_for(name, config, world) for name in NEEDS}
    return RestorationData(**rows)


def _pair_config(world: int, width: int | None = None) -> RunConfig:
    size = f"/base-{width}" if width else ""
    return load_config(_CONFIG, [f"models=['sandbox:{world}{size}']", "methods=[lora]"])


def _tick(shown: Bars, what: str, done: int, total: int) -> None:
    shown.update(what, done, total)


def _is(folder: Path, key: str) -> bool:
    try:
        return bool(json.loads((folder / _KEY).read_text(encoding="utf-8"))["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # it is made anew


def _restore(config: RunConfig, base: ModelSource, tuned: Path, world: int, output: Path, shown: Bars) -> None:
    from ...restore.config.settings import RestoreConfig
    from ...restore.models.loading import load_tuned
    from ...restore.restoration.problem import restore_on

    model, tokenizer = load_tuned(base.location, tuned, dtype=config.dtype, device=config.device, trainable=True)
    settings = RestoreConfig(micro_batch_size=64)
    with iterations_kept(model, base.location, output) as keep:
        result = restore_on(
            model, tokenizer, pair_rows(world), settings, on_progress=partial(_tick, shown), on_update=keep
        )
        result.save_pretrained(output, base.location)
