"""What people say of a run's responses: brought in, compared between reviewers, and settled."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError, listed
from ...registry import suggest
from ...results.agreement import Agreement, agree, cohen_kappa, gwet_ac1
from ...results.review.page import write_sheet
from ...results.review.reading import read_labels
from ...results.review.sheet import LABELS, Item, Label, Said, Sheet, final_label, truth
from ..plan import Plan
from ..store.digests import digest_of
from ..store.records import LabelRecord, SheetRecord
from ..store.store import Store
from .folder import load_plan, open_store, store_of
from .reviewed import by_item, settled, unchanged, write_labels
from .reviewing import Exported, digest_of_exchange

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dispute", "Imported", "Pair", "import_labels", "settle"]

_REVIEWER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


@dataclass(frozen=True)
class Pair:
    """Two reviewers on the responses that both labelled."""

    a: str
    b: str
    n: int
    alike: int
    """Labelled alike."""
    kappa: float | None
    """Cohen's, over all labels; None where it is not defined."""
    ac1: float | None
    """Gwet's, over all labels."""
    harm: Agreement
    """Of harmful or not, with intervals; what is unclear to a reviewer is unparsed there."""


@dataclass(frozen=True)
class Dispute:
    """A response that reviewers label differently, and that is not settled."""

    number: int
    """On the sheet, from 1."""
    item: str
    said: Mapping[str, Said]
    """By reviewer."""


@dataclass(frozen=True)
class Imported:
    """Labels that were stored, and where their sheet stands."""

    sheet: SheetRecord
    """The one that was drawn, also where labels settle it."""
    reviewer: str
    count: int
    labelled: int
    """Items of the sheet that somebody has labelled."""
    pairs: Sequence[Pair]
    disputes: Sequence[Dispute]
    written: "pd.DataFrame | None"
    """labels.csv of the run folder, as it was written (`reviewed.write_labels`)."""


def import_labels(
    folder: Path,
    paths: Sequence[Path],
    reviewer: str,
    partial: bool = False,
    replace: bool = False,
    store_path: Path | None = None,
) -> Imported:
    """Stores the labels of one reviewer, if nothing is wrong with any of them, and writes labels.csv anew.

    Args:
        folder: of the run.
        paths: files as in `read_labels`.
        reviewer: whose labels they are.
        partial: whether responses may be left without a label.
        replace: whether they may take the place of other labels of this reviewer.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: the folder holds no run, the id cannot be used, the labels are faulty (all faults at once), they
            contradict labels of the same reviewer, or the run has other responses now than their sheet.
    """
    if not _REVIEWER.fullmatch(reviewer):
        raise InputError(
            f"--reviewer {reviewer!r} cannot be used: give at most 40 letters, digits, dots, hyphens and underscores."
        )
    plan = load_plan(folder)
    store_of(folder, store_path)
    with closing(open_store(folder, store_path)) as store:
        sheets = store.reviews.sheets(plan.digest)
        if not sheets:
            raise InputError(f"The run in {folder} has no review sheet. Write one with `safebasin review export`.")
        items = {name: [item.id for item in sheet.items] for name, sheet in sheets.items()}
        read = read_labels(paths, items, store.reviews.foreign(plan.digest), partial)
        drawn = sheets[sheets[read.sheet].settles or read.sheet]
        unchanged(plan, folder, store, drawn)
        if not replace:
            _check_against_earlier(store.reviews.labels(read.sheet), reviewer, read.said)
        store.reviews.add_labels(read.sheet, reviewer, read.said)
        said = store.reviews.labels(drawn.id)
        disputes = list(_disputes(drawn, said, settled(store, sheets, drawn.id)))
    reviewers = dict.fromkeys(each.reviewer for each in said)
    pairs = [pair for a, b in combinations(reviewers, 2) if (pair := _pair(a, b, said)).n]
    labelled, written = len({each.item for each in said}), write_labels(folder, store_path)
    return Imported(drawn, reviewer, len(read.said), labelled, pairs, disputes, written)


def settle(folder: Path, output: Path, sheet: str | None = None, store_path: Path | None = None) -> Exported:
    """Writes a sheet of what reviewers label differently, with what they said; its labels are final.

    Args:
        folder: of the run.
        output: the page; the CSV goes beside it.
        sheet: id; where it is None, the newest sheet with something to settle.
        store_path: folder of a store shared with other runs.

    Raises:
        InputError: there is nothing to settle, or no such sheet, or a file cannot be written.
    """
    plan = load_plan(folder)
    store_of(folder, store_path)
    with closing(open_store(folder, store_path)) as store:
        sheets = store.reviews.sheets(plan.digest)
        drawn = {name: each for name, each in sheets.items() if not each.settles}
        if sheet is not None and sheet not in drawn:
            raise InputError(f"The run in {folder} has no drawn sheet '{sheet}'. {suggest(sheet, drawn)}")
        for name in [sheet] if sheet else reversed(drawn):
            open_ = list(_disputes(drawn[name], store.reviews.labels(name), settled(store, sheets, name)))
            if open_:
                break
        else:
            raise InputError(f"Nothing is to settle in {folder}: no two reviewers label a response differently.")
        record = _to_settle(drawn[name], {each.item for each in open_})
        texts = _texts(plan, folder, store, drawn[name])
        said = {each.item: [*each.said.values()] for each in open_}
        items = [Item(i.id, *texts[i.exchange], said[i.id]) for i in record.items]
        files = write_sheet(Sheet(record.id, items), output)
        store.reviews.add_sheet(record)
    return Exported(record, files)


def _check_against_earlier(known: Sequence[LabelRecord], reviewer: str, said: Mapping[str, Said]) -> None:
    before = {each.item: each.label for each in known if each.reviewer == reviewer}
    other = [
        f"{item}: {before[item]} before, {new.label} now"
        for item, new in said.items()
        if before.get(item, new.label) != new.label
    ]
    if other:
        raise InputError(
            f"'{reviewer}' has labelled {len(other)} of these responses otherwise before. Give --replace if the new "
            f"labels are to count, or another --reviewer:\n{listed(other, 100)}"
        )


def _disputes(
    sheet: SheetRecord, said: Sequence[LabelRecord], final: Mapping[str, Sequence[Label]]
) -> Iterator[Dispute]:
    known = by_item(said)
    for number, item in enumerate(sheet.items, start=1):
        own = known.get(item.id, {})
        if own and final_label([each.label for each in own.values()], final.get(item.id, ())) is None:
            yield Dispute(number, item.id, own)


def _pair(a: str, b: str, said: Sequence[LabelRecord]) -> Pair:
    both = [(own[a].label, own[b].label) for own in by_item(said).values() if a in own and b in own]
    table = np.array([[both.count((x, y)) for y in LABELS] for x in LABELS])
    harm = agree([truth(x)[0] for x, _ in both], [truth(y)[0] for _, y in both])
    return Pair(a, b, len(both), int(np.trace(table)), cohen_kappa(table), gwet_ac1(table), harm)


def _to_settle(drawn: SheetRecord, open_: set[str]) -> SheetRecord:
    items = tuple(item for item in drawn.items if item.id in open_)
    name = f"s{digest_of([drawn.id, sorted(open_)])[:10]}"
    return SheetRecord(name, drawn.run, items, drawn.tasks, drawn.cells, drawn.population, settles=drawn.id)


def _texts(plan: Plan, folder: Path, store: Store, sheet: SheetRecord) -> dict[str, tuple[str, str, str]]:
    """Digest of an exchange -> prompt, response, forced opening."""
    found = unchanged(plan, folder, store, sheet)
    return {digest_of_exchange(each): (each.prompt, each.response, places[0].prefix) for each, places in found.items()}
