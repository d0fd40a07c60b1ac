"""Responses of a run on a sheet for people: which there are, and which are drawn. Nothing is generated or judged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import InputError
from ...judges.base import Exchange
from ...registry import suggest
from ...restore.models.thinking import split_thinking
from ...results.judged import FACETS
from ...results.method_result import ROLES, MethodResult
from ...results.records import Verdict
from ...results.review.page import write_sheet
from ...results.review.sampling import SHARES, Candidate, draw, strata
from ...results.review.sheet import Item, Sheet
from ..plan import Cell, Plan
from ..store.digests import digest_of
from ..store.records import SheetItem, SheetRecord
from ..store.store import Store
from .folder import load_plan, name_of, open_store, store_of
from .judge import judged_as
from .replicas import check_against_manifest
from .worlds import world_in

__all__ = ["Exported", "Place", "Responses", "digest_of_exchange", "export", "population_of", "responses"]


class Place(NamedTuple):
    """Where in a run a response was given."""

    cell: Cell
    doc_id: int
    prefix: str


Responses = Mapping[Exchange, Sequence[Place]]
"""Each different exchange once, with everywhere that it was given."""


@dataclass(frozen=True)
class Exported:
    """A sheet that was written."""

    sheet: SheetRecord
    files: Sequence[Path]


def export(
    folder: Path, output: Path, size: int, seed: int, tasks: Sequence[str] = (), store_path: Path | None = None
) -> Exported:
    """Draws a sheet from a run, notes in the store what was drawn, and writes it as a page and as CSV.

    A response that several methods gave to one request stands once, and counts for all of them.

    Args:
        folder: of the run.
        output: the page; the CSV goes beside it.
        size: how many responses; all, where there are fewer.
        seed: decides which, and their order.
        tasks: of the run's judged tasks; those of the headline (HRR) by default, as labels are dear.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run, a task is not known, something is not judged yet, or a file cannot be
            written.
    """
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--output {output} must end in .html; the same sheet as CSV goes beside it.")
    plan = load_plan(folder)
    store_of(folder, store_path)
    with closing(open_store(folder, store_path)) as store:
        chosen = _tasks(plan, folder, tasks)
        cells = [cell for cell in plan.cells if cell.task in chosen]
        found = responses(plan, folder, store, [name_of(cell) for cell in cells])
        record = _drawn(plan, found, _strata(plan, folder, store, found), chosen, size, seed)
        texts = {digest_of_exchange(exchange): (exchange, places[0].prefix) for exchange, places in found.items()}
        items = [_item(drawn.id, *texts[drawn.exchange]) for drawn in record.items]
        files = write_sheet(Sheet(record.id, items), output)
        store.reviews.add_sheet(record)
    return Exported(record, files)


def responses(plan: Plan, folder: Path, store: Store, names: Sequence[str]) -> Responses:
    """The responses of cells, by what they are called; thinking that did not end, and unfinished cells, are absent.

    Raises:
        InputError: nothing is finished, or rows are of other models than the run's.
    """
    assigned = store.assignments(plan.digest)
    keys = {cell: key for cell in plan.cells if name_of(cell) in names and (key := _key(assigned, cell))}
    if not keys:
        raise InputError(f"No responses of the run in {folder} are finished yet. Run `safebasin run` first.")
    check_against_manifest(folder, [_answered_by(cell, store.cell_parts(key)) for cell, key in keys.items()])
    found: dict[Exchange, list[Place]] = {}
    for cell, key in keys.items():
        for sample in store.each_sample(key):
            place = Place(cell, sample.doc_id, sample.prefix)
            if split_thinking(sample.response)[1] is not None:  # else there is no answer that could be labelled
                found.setdefault(Exchange(sample.prompt, sample.response), []).append(place)
    return found


def digest_of_exchange(exchange: Exchange) -> str:
    """Digest of prompt and response."""
    return digest_of([exchange.prompt, exchange.response])


def population_of(found: Responses) -> str:
    """Digest of responses and of where each was given: what the weights of a sheet hold for."""
    places = [[digest_of_exchange(e), sorted([name_of(p.cell), p.doc_id] for p in at)] for e, at in found.items()]
    return digest_of(sorted(places))


def _key(assigned: Mapping[str, tuple[str | None, str]], cell: Cell) -> str | None:
    return assigned.get(name_of(cell), (None, ""))[0]


def _answered_by(cell: Cell, parts: Mapping[str, object]) -> MethodResult:
    return MethodResult(
        model=cell.model, method=cell.label, stage=cell.stage, seed=cell.seed,
        model_digest=str(parts.get("model", "")),
    )  # fmt: skip


def _tasks(plan: Plan, folder: Path, tasks: Sequence[str]) -> list[str]:
    roles = {cell.task: cell.role for cell in plan.cells if cell.role in ROLES}
    for task in tasks:
        if task not in roles:
            raise InputError(f"The run in {folder} has no judged task '{task}'. {suggest(task, roles)}")
    return [*dict.fromkeys(tasks)] or [task for task, role in roles.items() if role == "hrr"] or [*roles]


def _strata(plan: Plan, folder: Path, store: Store, found: Responses) -> list[str]:
    """The stratum of each response, in their order."""
    by_world: dict[int, list[Exchange]] = {}
    for exchange, places in found.items():
        by_world.setdefault(world_in(folder, places[0].cell.model), []).append(exchange)
    known: dict[Exchange, str] = {}
    for world, exchanges in by_world.items():
        judges = store.judges(judged_as(plan.digest, world))
        given = [store.verdicts(judge.identity, exchanges) for judge in judges]
        candidates = [_candidate(each, found[each][0], given) for each in exchanges]
        known |= dict(zip(exchanges, strata(candidates, [judge.decides for judge in judges]), strict=True))
    return [known[exchange] for exchange in found]


def _candidate(exchange: Exchange, place: Place, given: Sequence[Mapping[Exchange, Verdict]]) -> Candidate:
    if not given or any(exchange not in verdicts for verdicts in given):
        raise InputError(
            f"{name_of(place.cell)}: response {place.doc_id} is not judged by all judges. Run `safebasin run` again."
        )
    return Candidate(FACETS[place.cell.role], [verdicts[exchange] for verdicts in given])


def _drawn(
    plan: Plan, found: Responses, kinds: Sequence[str], tasks: Sequence[str], size: int, seed: int
) -> SheetRecord:
    exchanges, names = [*found], {name_of(place.cell) for places in found.values() for place in places}
    items = tuple(_drawn_items(exchanges, kinds, draw(kinds, size, seed)))
    population = population_of(found)
    about = [plan.digest, population, [[item.exchange, item.stratum] for item in items]]
    return SheetRecord(
        id=f"s{digest_of(about)[:10]}",  # a letter first: spreadsheets take 12e4567890 for a number
        run=plan.digest,
        items=items,
        tasks=list(tasks),
        cells=sorted(names),
        population=population,
        strata={name: kinds.count(name) for name in SHARES if name in kinds},
    )


def _drawn_items(exchanges: Sequence[Exchange], kinds: Sequence[str], drawn: Sequence[int]) -> Iterator[SheetItem]:
    for number in drawn:
        digest = digest_of_exchange(exchanges[number])
        yield SheetItem(f"r{digest[:12]}", digest, kinds[number])


def _item(name: str, exchange: Exchange, prefix: str) -> Item:
    return Item(name, exchange.prompt, exchange.response, prefix)
