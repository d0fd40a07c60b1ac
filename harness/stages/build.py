"""The build stage: every method's adapter, made once and kept with what it was made from."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import registry
from ...errors import InputError
from ...restore.method import BuildContext, Built, Method, Tick
from ...results.model_card import write_card
from ...source import source_digest
from ...tasks.sandbox.location import world_of
from ..config.data import rows_for
from ..config.model import RunConfig
from ..config.settings import make_method
from ..plan import BuildStep
from ..store.digests import checkpoint_digest, digest_of, weights_code
from ..store.files import finished_folder
from .cards import card_of
from .dose import Dose, dosed
from .leaks import check_leaks
from .loading import placement
from .models import ModelSource
from .peak import measured
from .ranks import SHARED, build_in_ranks

if TYPE_CHECKING:
    from ...restore.config.training import TrainingConfig

__all__ = ["PROVENANCE", "Checkpoint", "build", "changed", "fault", "load_checkpoint", "spec_of"]

PROVENANCE = "provenance.json"
_WRITTEN: dict[str, Any] = {
    "key": str,
    "digest": str,
    "minutes": int | float,
    "peak_gb": int | float | None,
    "safety_examples": int,
}
"""What every provenance says, and of which type it is."""


@dataclass(frozen=True)
class Checkpoint:
    """A finished adapter folder and what its provenance says."""

    folder: Path
    digest: str
    minutes: float
    peak_gb: float | None
    safety_examples: int


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in `folder`, or None where there is none, or its provenance is damaged."""
    about = _provenance(folder)
    if about is None:
        return None
    return Checkpoint(folder, about["digest"], about["minutes"], about["peak_gb"], about["safety_examples"])


def _provenance(folder: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(about, dict) and all(isinstance(about.get(name), kind) for name, kind in _WRITTEN.items())
    return about if whole else None


def changed(checkpoint: Checkpoint) -> str:
    """What is not as it was built in the folder of a checkpoint; empty where everything is."""
    try:
        digest = checkpoint_digest(checkpoint.folder)
    except (InputError, OSError) as error:
        return " ".join(str(error).split())
    return "" if digest == checkpoint.digest else "its files are not those that were built"


def build(
    step: BuildStep,
    config: RunConfig,
    model: ModelSource,
    folder: Path,
    parent: Checkpoint | None,
    tick: Tick,
    on_start: Callable[[], None] = lambda: None,
    dose: Dose | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Checkpoint:
    """Builds the adapter of one step, or returns the one already there if it was made from the very same things.

    A `dose` decides the number of steps of every fine-tuning. What is there and not whole is built again, and said.

    Raises:
        InputError: the method's settings, data or model are unusable, its data are measured on, or it diverged.
    """
    method: Method = make_method(step.method, step.settings)
    needs = () if _given(step.method, step.settings) else method.needs
    data = {name: rows_for(name, config, world_of(model.location)) for name in needs}
    check_leaks(data, config, model.location)
    finetune = dosed(config.finetune.training(), dose)
    spec = spec_of(step, config, finetune, model, data, parent)
    found, about = load_checkpoint(folder), _provenance(folder) or {}
    wrong = fault(folder, found)
    if found and not wrong and about["key"] == digest_of(spec):
        return found
    if wrong:
        say(f"{folder} is built again: {wrong}")
    on_start()
    with finished_folder(folder) as scratch:
        context = BuildContext(
            base=model.location,
            revision=model.revision,
            output=scratch,
            finetune=finetune,
            lora=config.finetune.lora(),
            data=data,
            parent=parent.folder if parent else None,
            unaligned=model.unaligned.location if model.unaligned else None,
            seed=step.seed,
            tick=tick,
            dtype=config.dtype,
            device=placement(config),
        )
        with measured() as cost:
            built = _built(method, context, config)
        about = {
            "key": digest_of(spec),
            "digest": checkpoint_digest(scratch),
            "method": step.method,
            "minutes": cost.minutes,
            "peak_gb": cost.peak_gb,
            "safety_examples": built.safety_examples,
            "details": dict(built.details),
            "dose": asdict(dose) if dose else None,
            "made_from": spec,
        }
        (scratch / PROVENANCE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        if step.parent:
            write_card(scratch, card_of(step, about, (scratch / "adapter_config.json").is_file()))
    return _loaded(folder)


def _built(method: Method, context: BuildContext, config: RunConfig) -> Built:
    """Builds in this process, or in several that fine-tune together."""
    parallel = config.parallel
    if parallel.processes == 1 or method.name not in SHARED or _given(method.name, vars(method)):
        return method.build(context)
    tuning = replace(
        context.finetune, processes=parallel.processes, fsdp=parallel.fsdp, deepspeed=parallel.deepspeed
    )  # fmt: skip
    return build_in_ranks(method, replace(context, finetune=tuning), config)


def _loaded(folder: Path) -> Checkpoint:
    found = load_checkpoint(folder)
    if found is None:
        raise InputError(
            f"The checkpoint {folder} vanished while it was read. Run again, with nothing else writing there."
        )
    return found


def fault(folder: Path, found: Checkpoint | None) -> str:
    """Why what lies in a checkpoint's place is no whole one; empty where it is, or nothing lies there."""
    if found is not None:
        return changed(found)
    if folder.is_dir():
        return f"its {PROVENANCE} is damaged or missing"
    return "something else lies in its place" if folder.exists() or folder.is_symlink() else ""


def spec_of(
    step: BuildStep,
    config: RunConfig,
    finetune: "TrainingConfig",
    model: ModelSource,
    data: dict[str, list[dict[str, Any]]],
    parent: Checkpoint | None,
) -> dict[str, Any]:
    """Everything that decides what the adapter becomes."""
    return {
        "base": model.digest,
        "files": dict(model.files),
        "unaligned": model.unaligned.digest if model.unaligned else None,
        "parent": parent.digest if parent else None,
        "method": step.method,
        "settings": step.settings,
        "adapter": checkpoint_digest(Path(given)) if (given := _given(step.method, step.settings)) else None,
        "finetune": asdict(finetune),
        "lora": config.finetune.lora(),
        "seed": step.seed,
        "dtype": config.dtype,
        "date": str(config.date),
        "think_end_token": config.think_end_token,
        "data": {name: digest_of(rows) for name, rows in data.items()},
        "code": [weights_code(), source_digest([Path(inspect.getfile(registry.load("methods", step.method)))])],
    }


def _given(method: str, settings: Mapping[str, Any]) -> str | None:
    """The folder of weights that a method takes over instead of making them."""
    return settings.get("model" if method == "full" else "adapter")
