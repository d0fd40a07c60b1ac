"""`geometry correlate`: the losses of base, tuned and restored models on named sets, and how they hang together."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from ...errors import InputError
from ...restore.models.fitting import fitted, rows_of
from ...results.export import write_table
from ...tasks.sandbox.location import cache_folder, is_sandbox, world_of
from ..store.digests import digest_of
from ..store.files import make_folder
from ..terminal.progress import Bars
from .geometry_pair import BASE, TUNED, Compared, compared
from .geometry_rows import rows_of_sets
from .manifest import write_manifest
from .models import resolve

if TYPE_CHECKING:
    import pandas as pd

    from ...restore.geometry.texts import Asked

__all__ = ["CORRELATIONS", "LOSSES", "MEANS", "Correlated", "Settings", "correlate"]

LOSSES, MEANS, CORRELATIONS = "losses.csv", "means.csv", "correlations.csv"
UNRELATED = "unrelated"
RANDOM, NOTHING = "random", "none"
"""What `unrelated` may be beside the name of a model."""


@dataclass(frozen=True)
class Settings:
    """What is compared, and how."""

    base: str
    tuned: Path | None
    restored: Path | None
    data: Mapping[str, str]
    """Set -> source; empty for a sandbox base's own."""
    columns: Mapping[str, Mapping[str, str]]
    rows: int = 200
    unrelated: str = RANDOM
    """A model that has nothing to do with the base: `random` for the base's architecture with fresh weights, a model,
    or `none`."""
    batch_size: int = 16
    max_new_tokens: int = 64
    max_length: int = 1024
    seed: int = 0
    dtype: str = "auto"
    device: str | None = None


@dataclass(frozen=True)
class Correlated:
    """What came of it."""

    losses: "pd.DataFrame"
    means: "pd.DataFrame"
    correlations: "pd.DataFrame"


def correlate(settings: Settings, output: Path, shown: Bars) -> Correlated:
    """Measures all losses and writes losses.csv, means.csv, correlations.csv, manifest.json and correlate.html.

    Raises:
        InputError: models or rows cannot be had, or do not fit each other; or the folder cannot be written.
    """
    import pandas as pd

    from ...restore.geometry.tables import correlations, means
    from ...restore.geometry.texts import Asked
    from ...results.geometry.correlate import correlate_page

    make_folder(output)
    models = compared(settings.base, settings.tuned, settings.restored, shown)
    world = world_of(models.base.location) if is_sandbox(settings.base) else None
    rows, said = rows_of_sets(
        dict(settings.data), {k: dict(v) for k, v in settings.columns.items()}, settings.rows, world
    )
    for line in said:
        shown.say(escape(line))
    asked = [Asked.of(name, own) for name, own in rows.items()]
    losses = pd.DataFrame(_Measuring(models, settings, shown).measure(asked))
    result = Correlated(losses, means(losses), correlations(losses, settings.seed))
    for name, table in ((LOSSES, losses), (MEANS, result.means), (CORRELATIONS, result.correlations)):
        write_table(table, output / name)
    facts = {
        "command": "geometry correlate",
        "settings": {**asdict(settings), "tuned": str(settings.tuned or ""), "restored": str(settings.restored or "")},
        "models": models.digests(),
        "data": {name: {"rows": len(own), "digest": digest_of(own)} for name, own in rows.items()},
    }
    write_manifest(output / "manifest.json", facts)
    correlate_page(result.losses, result.means, result.correlations, facts, output, cache_folder())
    return result


class _Measuring:
    """Goes through the models one after the other: only one is in memory."""

    def __init__(self, models: Compared, settings: Settings, shown: Bars) -> None:
        self.models, self.settings, self.shown = models, settings, shown
        self.tokenizer: Any = models.tokenizer()
        self.names = [BASE, *models.checkpoints, *([UNRELATED] if settings.unrelated != NOTHING else [])]

    def _load(self, name: str) -> Any:
        model = self.models.load(name, self.settings.dtype, self.settings.device)
        if name == TUNED:
            self.tokenizer = fitted(self.tokenizer, rows_of(model))
        return model

    def measure(self, asked: Sequence["Asked"]) -> list[dict[str, Any]]:
        """One dict per row, target and model, in the order of the models."""
        from ...restore.geometry.measure import loss_rows
        from ...restore.geometry.texts import encoded, with_answers, with_refusals
        from ...restore.losses.encoding import pad_id_of

        given, size = self.settings, self.settings.batch_size
        if any(one.harmful for one in asked):
            base = self._load(BASE)
            asked = [with_refusals(base, self.tokenizer, one, given.max_new_tokens, size) for one in asked]
            del base
        found: dict[str, list[dict[str, Any]]] = {}
        order = [TUNED, *(name for name in self.names if name != TUNED)]  # its answers are what others are measured on
        sets: Any = {}
        for place, name in enumerate(order):
            self.shown.update("losses", place, len(order))
            if name == UNRELATED:
                model, tokenizer = self._unrelated()
                own = {one.name: encoded(tokenizer, one, given.max_length) for one in asked}
                found[name] = loss_rows(name, model, own, size, pad_id_of(tokenizer))
                continue
            model = self._load(name)
            if name == TUNED:
                asked = [with_answers(model, self.tokenizer, one, given.max_new_tokens, size) for one in asked]
                sets = {one.name: encoded(self.tokenizer, one, given.max_length) for one in asked}
            found[name] = loss_rows(name, model, sets, size, pad_id_of(self.tokenizer))
            del model
        self.shown.update("losses", len(order), len(order))
        return [row for name in self.names for row in found[name]]

    def _unrelated(self) -> tuple[Any, Any]:
        from ...restore.models.loading import load_base, load_tokenizer

        name, given = self.settings.unrelated, self.settings
        if name == RANDOM:
            return _with_random_weights(self._load(BASE), given.seed), self.tokenizer
        location = resolve(name).location
        try:
            model = load_base(location, None, given.dtype, given.device)
        except InputError as error:
            raise InputError(f"--unrelated {name}: {error}") from error
        return model, fitted(load_tokenizer(location), rows_of(model))


def _with_random_weights(model: Any, seed: int) -> Any:
    """A model of the same architecture, as it is before any training."""
    from transformers import set_seed

    set_seed(seed)
    fresh = type(model)(model.config)
    return fresh.to(device=model.device, dtype=model.dtype).eval()
