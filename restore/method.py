"""The method interface: how one model becomes another, and what a method must tell of itself."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from .. import registry
from ..errors import InputError

if TYPE_CHECKING:
    from .config.training import TrainingConfig
    from .models.devices import Spread

__all__ = ["EPSILONS", "BuildContext", "Built", "Grid", "Method", "Stage", "Tick", "post_hoc"]

Stage = Literal["base", "alignment", "fine-tuning", "post-hoc"]
Tick = Callable[[str, int, int], None]
"""Progress: (what is being done, steps done, steps in all)."""
Rows = Sequence[Mapping[str, str]]
Grid = tuple[Mapping[str, Any], ...]
EPSILONS: Grid = ({}, *({"epsilon": epsilon} for epsilon in (0.03, 0.01, 0.003, 0.001, 0.3)))
"""The grid of a method that goes as far as a bound on the retain loss allows, in nats per token."""


@dataclass(frozen=True)
class BuildContext:
    """All that a method may use. Data are rows with `prompt` and `response` (forget rows: `prompt` and `target`)."""

    base: str
    """Folder or hub id of the aligned base model."""
    revision: str | None
    output: Path
    """An existing empty folder; the method saves a standard PEFT adapter there."""
    finetune: "TrainingConfig"
    lora: Mapping[str, Any]
    """rank, alpha, dropout and target_modules of the adapter."""
    data: Mapping[str, Rows]
    """Split name -> rows: those that the method's `needs` names."""
    parent: Path | None = None
    """The fine-tuned adapter that a post-hoc method starts from."""
    unaligned: str | None = None
    """Folder of the same model before its alignment, where the config names one."""
    seed: int = 0
    tick: Tick = lambda what, done, total: None
    dtype: str = "auto"
    device: "str | Spread | None" = None
    max_length: int = 1024


@dataclass(frozen=True)
class Built:
    """What a method reports besides the adapter it saved."""

    safety_examples: int = 0
    """Number of distinct safety rows (harmful prompts, refusals) that it used."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Anything else worth keeping in provenance.json; JSON values only."""


class Method(Protocol):
    """A method, constructed from its own settings: `{name: {setting: value}}` in the config gives keyword arguments.

    The class is a frozen dataclass whose `__post_init__` raises `InputError` on bad settings.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    summary: ClassVar[str]
    """One line for `safebasin list methods`."""
    paper: ClassVar[str]
    """Where the method comes from."""
    licence: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Names of the data splits it uses."""
    grid: ClassVar[Grid]
    """Settings that `tuned` tries, the published ones first; post-hoc methods with a choice alone have it."""

    def build(self, context: BuildContext) -> Built:
        """Builds the adapter and saves it to `context.output`."""
        ...


def post_hoc(name: str, settings: Mapping[str, Any]) -> Method:
    """A post-hoc method with its settings; of one that has presets, `preset` names what the others change.

    Raises:
        InputError: there is no such method or setting, it is of another stage, or values are bad.
    """
    kind = registry.load("methods", name)
    if kind.stage != "post-hoc":
        raise InputError(f"{name} is a method of stage {kind.stage}; give a post-hoc one, such as safe_lora.")
    known, given, make = list(inspect.signature(kind).parameters), dict(settings), kind
    if "preset" in given and hasattr(kind, "from_preset"):
        make = partial(kind.from_preset, given.pop("preset"))
    for key in given:
        if key not in known:
            raise InputError(f"{name} has no setting '{key}'. {registry.suggest(key, known)}")
    made: Method = make(**given)
    return made
