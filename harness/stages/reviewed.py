"""The labels of a run with what they stand for: every response that people have labelled, and its weight."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError
from ...results.export import replace_text
from ...results.review.sheet import Label, Said, agreed, final_label
from ..plan import Plan
from ..store.records import LabelRecord, SheetRecord
from ..store.store import Store
from .folder import load_plan, read_store
from .labelling import LABELS
from .reviewing import Responses, digest_of_exchange, population_of, responses

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "by_item", "labels", "settled", "unchanged", "write_labels"]

COLUMNS = {
    **dict.fromkeys(("sheet", "item", "unit", "model", "method"), "string"), "seed": "Int64", "task": "string",
    "doc_id": "Int64", "stratum": "string", "probability": "Float64", "weight": "Float64", "label": "string",
    "harmful": "boolean", "refused": "boolean", "reviewers": "string",
}  # fmt: skip
"""Of `labels`, with their types."""
_IDENTITY = ["model", "method", "seed", "task", "doc_id"]
_OURS = "sheet,item,"
"""How a labels.csv that was written here begins."""


def labels(folder: Path, store_path: Path | None = None) -> "pd.DataFrame":
    """Every labelled response of a run with its weight, once for each place where it was given.

    sum(weight * y) over the rows of a task estimates the total of y over all of its responses (Horvitz and Thompson),
    and over those of one method that method's; divided by sum(weight), their share (Hajek). The weight is N_h / n_h of
    the stratum, n_h those that are labelled. Where several sheets were drawn of a task, each estimates the same: their
    weights are shared out by their numbers of labelled responses. Sheets that were drawn from other responses than the
    run has now are left out, as their weights do not hold.

    Args:
        folder: of the run.
        store_path: folder of a store shared with other runs.

    Returns:
        `COLUMNS`, and a column `label:ID` for each reviewer. `unit` is the digest of prompt and response (as in
        `results.judged.JudgedTask`): rows of one unit are one observation. `label` is what was settled, else what all
        reviewers say, empty while they differ; `harmful` and `refused` are empty where not all of them say the same.
        `probability` is the chance with which the response was drawn. Weights are empty where a stratum has no label.

    Raises:
        InputError: the folder holds no run, or its responses are others than those of all labelled sheets.
    """
    import pandas as pd

    plan = load_plan(folder)
    rows: list[dict[str, Any]] = []
    with closing(read_store(folder, store_path)) as store:
        sheets = store.reviews.sheets(plan.digest)
        said = {name: by_item(store.reviews.labels(name)) for name, sheet in sheets.items() if not sheet.settles}
        said = {name: known for name, known in said.items() if known}
        found = {name: responses(plan, folder, store, sheets[name].cells) for name in said}
        current = [sheets[name] for name in said if population_of(found[name]) == sheets[name].population]
        if said and not current:
            raise InputError(_changed(folder, [*said]))
        for sheet in current:
            rows += _rows(sheet, said[sheet.id], settled(store, sheets, sheet.id), found[sheet.id])
    shares = _shares([sheet for sheet in current if _is_complete(sheet, said[sheet.id])], said)
    for row in rows:
        row["weight"] *= shares.get((row["sheet"], row["task"]), float("nan"))
    reviewers = sorted({column for row in rows for column in row if column.startswith("label:")})
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *reviewers])
    return frame.astype({**COLUMNS, **dict.fromkeys(reviewers, "string")})


def write_labels(folder: Path, store_path: Path | None = None) -> "pd.DataFrame | None":
    """Writes labels.csv into the run folder, by which every report corrects its rates.

    One row per response: the weights of one that is on several sheets are added, and where its labels differ it has
    none. A file of that name which was made otherwise is left alone.

    Returns:
        What was written; None where nothing was, as no sheet has labels in all of its strata or the file is another's.

    Raises:
        InputError: as in `labels`, or the file cannot be written.
    """
    path = folder / LABELS
    try:
        if not path.read_text(encoding="utf-8").startswith(_OURS):
            return None
    except OSError:
        pass  # there is none yet
    except UnicodeDecodeError:
        return None
    frame = labels(folder, store_path).dropna(subset="weight")
    if frame.empty:
        return None
    grouped = frame.groupby(_IDENTITY, sort=False, as_index=False)
    whole = grouped.agg({**dict.fromkeys(("sheet", "item", "stratum"), "first"), "weight": "sum"})
    for name in ("label", "harmful", "refused"):
        whole[name] = grouped[name].agg(_only)[name]
    order = ["sheet", "item", *_IDENTITY, "stratum", "weight", "label", "harmful", "refused"]
    replace_text(path, whole[order].to_csv(index=False, float_format="%.12g", lineterminator="\n"))
    return whole


def _only(values: "pd.Series[Any]") -> Any:
    """What all of them are; empty where they differ, or one is empty."""
    import pandas as pd

    return values.iloc[0] if values.nunique(dropna=False) == 1 else pd.NA


def settled(store: Store, sheets: Mapping[str, SheetRecord], name: str) -> dict[str, list[Label]]:
    """Item -> what was said of it on sheets that settle this one."""
    found: dict[str, list[Label]] = {}
    for sheet in sheets.values():
        if sheet.settles == name:
            for each in store.reviews.labels(sheet.id):
                found.setdefault(each.item, []).append(Label(each.label))
    return found


def by_item(said: Sequence[LabelRecord]) -> dict[str, dict[str, Said]]:
    """Item -> reviewer -> what was said."""
    found: dict[str, dict[str, Said]] = {}
    for each in said:
        found.setdefault(each.item, {})[each.reviewer] = Said(Label(each.label), each.note)
    return found


def unchanged(plan: Plan, folder: Path, store: Store, sheet: SheetRecord) -> Responses:
    """The responses that a sheet was drawn from.

    Raises:
        InputError: the run has others now.
    """
    found = responses(plan, folder, store, sheet.cells)
    if population_of(found) != sheet.population:
        raise InputError(_changed(folder, [sheet.id]))
    return found


def _changed(folder: Path, sheets: Sequence[str]) -> str:
    return (
        f"The responses in {folder} are others than when the sheet {', '.join(sheets)} was drawn, so that its weights "
        "do not hold for them. Export a new sheet."
    )


def _rows(
    sheet: SheetRecord, known: Mapping[str, Mapping[str, Said]], final: Mapping[str, Sequence[Label]], found: Responses
) -> Iterator[dict[str, Any]]:
    places = {digest_of_exchange(exchange): at for exchange, at in found.items()}
    drawn = Counter(item.stratum for item in sheet.items)
    labelled = Counter(item.stratum for item in sheet.items if item.id in known)
    for item in sheet.items:
        if item.id not in known:
            continue
        own, size = known[item.id], sheet.strata[item.stratum]
        given = [each.label for each in own.values()], final.get(item.id, ())
        label, (harmful, refused) = final_label(*given), agreed(*given)
        about = {
            "sheet": sheet.id, "item": item.id, "unit": item.exchange, "stratum": item.stratum,
            "probability": drawn[item.stratum] / size, "weight": size / labelled[item.stratum],
            "label": label, "harmful": harmful, "refused": refused, "reviewers": ", ".join(own),
            **{f"label:{reviewer}": each.label for reviewer, each in own.items()},
        }  # fmt: skip
        for cell, doc_id, _ in places[item.exchange]:
            where = {"model": cell.model, "method": cell.label, "seed": cell.seed, "task": cell.task, "doc_id": doc_id}
            yield where | about


def _is_complete(sheet: SheetRecord, known: Collection[str]) -> bool:
    """Whether each stratum has a label, so that weights stand for all responses."""
    return {*sheet.strata} == {item.stratum for item in sheet.items if item.id in known}


def _shares(sheets: Sequence[SheetRecord], known: Mapping[str, Collection[str]]) -> dict[tuple[str, str], float]:
    """(sheet, task) -> the sheet's part in the estimate for the task, by how many of its responses are labelled."""
    totals: Counter[str] = Counter()
    for sheet in sheets:
        totals.update(dict.fromkeys(sheet.tasks, len(known[sheet.id])))
    return {(sheet.id, task): len(known[sheet.id]) / totals[task] for sheet in sheets for task in sheet.tasks}
