"""`geometry landscape`: losses around the weights of base, tuned and restored models, line by line, resumable."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from ...errors import InputError
from ...restore.models.fitting import fitted, rows_of
from ...results.export import replace_text, write_table
from ...tasks.sandbox.location import cache_folder, is_sandbox, world_of
from ..store.digests import code_digest, digest_of
from ..store.files import locked, make_folder
from ..terminal.progress import Bars
from .geometry_pair import BASE, TUNED, Compared, compared
from .geometry_rows import SANDBOX_SETS, rows_of_sets
from .journal import Journal
from .manifest import write_manifest

if TYPE_CHECKING:
    from ...restore.geometry.surfaces import Surfaces
    from ...restore.losses.encoding import Encoded

__all__ = ["DEFAULT_SETS", "LandscapeSettings", "landscape"]

DEFAULT_SETS = ("harmful", "task", "dual_use")
"""Of a sandbox base's own sets, those that a landscape is taken of."""
GRID, SECTIONS, STRUCTURE, PERCENTILES = "grid.csv", "sections.csv", "structure.csv", "percentiles.csv"
JOURNAL, DIRECTIONS = "landscape.jsonl", "directions"
DIGITS = 10
"""Of the tables' numbers: second differences of losses are far smaller than losses."""
OTHER = 1
"""What is added to the seeds for the second pair of directions."""
_CODE = ("restore/geometry", "restore/losses", "restore/models")


@dataclass(frozen=True)
class LandscapeSettings:
    """What landscapes are taken of, and how."""

    base: str
    tuned: Path | None
    restored: Path | None
    data: Mapping[str, str]
    """Set -> source; empty for a sandbox base's own."""
    columns: Mapping[str, Mapping[str, str]]
    rows: int = 32
    """Of each draw; there are two."""
    points: int = 20
    reach: float = 0.01
    seeds: tuple[int, int] = (1000, 2000)
    scale: str = "tensor"
    batch_size: int = 32
    max_new_tokens: int = 64
    max_length: int = 1024
    dtype: str = "auto"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.scale not in ("tensor", "raw"):
            raise InputError(f"--scale {self.scale} is neither tensor nor raw.")
        if self.points < 3 or not self.reach > 0:
            raise InputError(f"--points {self.points} and --reach {self.reach:g}: at least 3, and more than 0.")

    @property
    def others(self) -> tuple[int, int]:
        """Seeds of the second pair of directions."""
        return self.seeds[0] + OTHER, self.seeds[1] + OTHER


def landscape(settings: LandscapeSettings, output: Path, shown: Bars) -> "Surfaces":
    """Takes all landscapes, or goes on with them, and writes their tables, the manifest and landscape.html.

    Raises:
        InputError: models or rows cannot be had, or do not fit each other; or the folder cannot be written.
    """
    from ...restore.geometry.landscape import Plane
    from ...restore.geometry.surfaces import Surfaces
    from ...results.geometry.landscape import landscape_page

    make_folder(output)
    with locked(output, wait=False):
        work = _Landscaping(settings, output, shown)
        work.take()
        found = Surfaces(
            Plane(settings.points, settings.reach), work.values(settings.seeds), work.values(settings.others)
        )
        grid, sections, structures, shares = found.table(), found.sections(), found.structures(), found.percentiles()
        for name, table in ((GRID, grid), (SECTIONS, sections), (STRUCTURE, structures), (PERCENTILES, shares)):
            write_table(table, output / name, DIGITS)
        write_manifest(output / "manifest.json", work.facts)
        landscape_page(
            found.grid, found.sets, list(found.values), grid, sections, structures, shares, work.facts, output,
            cache_folder(),
        )  # fmt: skip
        for left in output.glob(f"{DIRECTIONS}-*"):
            left.unlink()
    return found


class _Landscaping:
    """One landscape command; only one model is in memory at a time."""

    def __init__(self, settings: LandscapeSettings, output: Path, shown: Bars) -> None:
        self.settings, self.output, self.shown = settings, output, shown
        self.models: Compared = compared(settings.base, settings.tuned, settings.restored, shown).without_iterations()
        self.tokenizer: Any = self.models.tokenizer()
        self.sets = self._sets()
        self.draws = {name: _draws(name, rows, settings.rows) for name, rows in self.sets.items()}
        what = {**asdict(settings), "tuned": str(settings.tuned or ""), "restored": str(settings.restored or "")}
        rows = {name: digest_of([[list(row.ids), row.start] for row in own]) for name, own in self.sets.items()}
        self.facts = {
            "command": "geometry landscape",
            "settings": what,
            "models": self.models.digests(),
            "data": {name: {"rows": 2 * len(self.draws[name][0]), "digest": rows[name]} for name in rows},
        }
        said = {k: v for k, v in what.items() if k not in ("base", "tuned", "restored", "data", "columns")}
        key = digest_of([said, self.models.digests(), rows, code_digest(*_CODE)])
        self.key, self.journal = key, Journal(output / JOURNAL, key)

    def _load(self, name: str) -> Any:
        return self.models.load(name, self.settings.dtype, self.settings.device)

    def _sets(self) -> "dict[str, list[Encoded]]":
        """What losses are taken on: the answers of each set, and the refusals of harmful prompts."""
        from ...restore.geometry.texts import Asked, encoded, with_answers, with_refusals

        given = self.settings
        world = world_of(self.models.base.location) if is_sandbox(given.base) else None
        sources = dict(given.data)
        if not sources and world is not None:
            sources = {name: f"sandbox/{SANDBOX_SETS[name]}" for name in DEFAULT_SETS}
        columns = {name: dict(own) for name, own in given.columns.items()}
        rows, said = rows_of_sets(sources, columns, 8 * given.rows, world)  # more than two draws: not all have answers
        for line in said:
            self.shown.say(escape(line))
        asked, base = [Asked.of(name, own) for name, own in rows.items()], self._load(BASE)
        asked = [with_refusals(base, self.tokenizer, one, given.max_new_tokens, given.batch_size) for one in asked]
        del base
        tuned = self._load(TUNED)
        self.tokenizer = fitted(self.tokenizer, rows_of(tuned))
        asked = [with_answers(tuned, self.tokenizer, one, given.max_new_tokens, given.batch_size) for one in asked]
        found = {}
        for one in asked:
            for target, own in encoded(self.tokenizer, one, given.max_length).items():
                if target in ("answer", "refusal"):
                    found[f"{one.name}, {target}"] = [row for row in own if row is not None]
        return found

    def _jobs(self) -> list[tuple[str, tuple[int, int]]]:
        """(model, seeds of its directions)."""
        given = self.settings
        return [*((name, given.seeds) for name in (BASE, *self.models.checkpoints)), (BASE, given.others)]

    def take(self) -> None:
        """Takes the lines that are missing."""
        from ...restore.geometry.landscape import Plane, lines_of

        lines = dict(enumerate(lines_of(Plane(self.settings.points, self.settings.reach))))
        missing = {
            job: {number: line for number, line in lines.items() if _name(*job, number) not in self.journal.done}
            for job in self._jobs()
        }
        total = len(missing) * sum(map(len, lines.values()))
        done = total - sum(len(line) for own in missing.values() for line in own.values())
        for job, own in missing.items():
            if own:
                self._take(job, own, done, total)
                done += sum(map(len, own.values()))
        self.shown.update("points of landscapes", total, total)

    def _take(self, job: tuple[str, tuple[int, int]], lines: Mapping[int, Any], done: int, total: int) -> None:
        from ...restore.geometry.directions import direction_like, moved_weights
        from ...restore.geometry.landscape import walk
        from ...restore.geometry.row_losses import RowLosses
        from ...restore.losses.encoding import pad_id_of
        from ...restore.losses.fit import check_fit
        from ...restore.models.devices import input_device
        from ...restore.models.origin import TensorFile

        name, seeds = job
        path = self._directions(seeds)
        model, pad = self._load(name), pad_id_of(self.tokenizer)
        losses = {}
        for set_name, rows in self.sets.items():
            chosen = [rows[place] for place in np.concatenate(self.draws[set_name])]
            check_fit(model, [row.ids for row in chosen], set_name)
            losses[set_name] = RowLosses(chosen, self.settings.batch_size, pad, input_device(model))
        draws = {each: np.split(np.arange(len(losses[each])), 2) for each in losses}
        self.shown.update("points of landscapes", done, total)

        def tick(points: int) -> None:
            self.shown.update("points of landscapes", done + points, total)

        with path.open("rb") as file:
            directions = TensorFile(file, direction_like(moved_weights(model)))
            for number, values in walk(model, directions, losses, draws, lines, tick):
                self.journal.keep(_name(name, seeds, number), values)

    def _directions(self, seeds: tuple[int, int]) -> Path:
        """The file of a pair of directions, made of the base's gradient on the first draw of all sets."""
        from ...restore.geometry.directions import direction_file, gradient_of, moved_weights
        from ...restore.losses.encoding import pad_id_of

        path = self.output / f"{DIRECTIONS}-{seeds[0]}-{seeds[1]}"
        noted = self.output / f"{path.name}.key"
        if path.is_file() and noted.is_file() and noted.read_text(encoding="utf-8") == self.key:
            return path
        noted.unlink(missing_ok=True)
        model = self._load(BASE)
        rows = [self.sets[name][place] for name, (first, _) in self.draws.items() for place in first]
        with (self.output / f"{DIRECTIONS}-gradient").open("w+b") as file, path.open("w+b") as made:
            gradient = gradient_of(model, rows, pad_id_of(self.tokenizer), file)
            direction_file(made, moved_weights(model), gradient, seeds, self.settings.scale)  # type: ignore[arg-type]
        replace_text(noted, self.key)
        return path

    def values(self, seeds: tuple[int, int]) -> dict[str, list[Any]]:
        """Model -> the values of all lines along the directions of these seeds."""
        count = self.settings.points + 2
        return {
            name: [self.journal.done[_name(name, own, number)] for number in range(count)]
            for name, own in self._jobs()
            if own == seeds
        }


def _name(model: str, seeds: tuple[int, int], line: int) -> str:
    return f"{model} {seeds[0]} {seeds[1]} {line}"


def _draws(name: str, rows: Sequence[Any], wanted: int) -> list[Any]:
    """The places of two random draws of rows that share none."""
    size = min(wanted, len(rows) // 2)
    if size < 1:
        raise InputError(
            f"The set '{name}' has {len(rows)} rows with a text; two draws need two at least. Give more rows, or leave "
            "the set out."
        )
    order = np.random.default_rng(0).permutation(len(rows))
    return [order[:size], order[size : 2 * size]]
