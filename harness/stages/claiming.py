"""`geometry claim`: over finished runs, is harmful loss preserved by fine-tuning, and does that predict repairs?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from ...errors import InputError
from ...results.export import write_table
from ...results.geometry.claim import claim_page
from ...results.geometry.preserved import CONTROL, HARMFUL, PREDICTORS, predicted, preserved
from ...tasks.sandbox.location import cache_folder, is_sandbox
from ..config.naming import slug
from ..plan import Plan, Row
from ..terminal.progress import Bars
from .align import find_model
from .correlating import NOTHING, Settings, correlate
from .folder import load_plan
from .geometry_pair import TUNED
from .loaded import load_run
from .manifest import write_manifest
from .worlds import build_worlds

__all__ = ["CELLS", "CORRELATIONS", "PREDICTED", "PRESERVED", "Claimed", "claim"]

CORRELATIONS, CELLS, PRESERVED, PREDICTED = "correlations.csv", "cells.csv", "preserved.csv", "predicted.csv"
PAIRS = "pairs"
"""Folder with what `geometry correlate` writes of each fine-tuning."""
LEAST_DRIFT = 10
"""Points of HRR above the base that there must be to undo."""


@dataclass(frozen=True)
class Claimed:
    """What came of it."""

    preserved: pd.DataFrame
    predicted: pd.DataFrame


@dataclass(frozen=True)
class _Tuned:
    """One fine-tuning of a run."""

    row: Row
    base: str
    """What `geometry correlate` is given."""
    folder: Path
    """Of its checkpoint."""


def claim(runs: Sequence[Path], settings: Settings, tuned: str, output: Path, shown: Bars) -> Claimed:
    """Measures the losses of every fine-tuning and writes the tables, pairs/, manifest.json and claim.html.

    Args:
        runs: folders of finished runs, with base, fine-tuning and repairs.
        settings: of the correlations; base, tuned and restored models are filled in from the runs.
        tuned: label of the fine-tuning's row.
        output: folder.
        shown: progress.

    Raises:
        InputError: a folder holds no finished run or has no such row, its models are gone or others than they were, a
            fine-tuning comes twice, there is no set named harmful, or rows cannot be had.
    """
    if settings.data and HARMFUL not in settings.data:
        raise InputError(
            f"--data names the sets {', '.join(settings.data)}; the harmful prompts are missing: --data harmful=…"
        )
    correlations: list[pd.DataFrame] = []
    cells: list[Mapping[str, object]] = []
    told: dict[str, str] = {}
    for run in runs:
        plan, board = load_plan(run), load_run(run).leaderboard
        build_worlds(plan.config, shown)
        for one in _tuned_of(plan, run, board, tuned):
            name = slug(f"{one.row.model}-{tuned}-seed{one.row.seed}")
            if name in told:
                raise InputError(f"{one.row.model}, seed {one.row.seed}, is in {told[name]} and in {run}. Give one.")
            told[name] = str(run)
            pair = replace(settings, base=one.base, tuned=one.folder, restored=None, unrelated=NOTHING)
            found = correlate(pair, output / PAIRS / name, shown).correlations
            found = found[found["model"] == TUNED].drop(columns="model")
            found.insert(0, "seed", one.row.seed)
            found.insert(0, "model", one.row.model)
            correlations.append(found)
            cells.extend(_cells(board, one.row, found))
    every, frame = pd.concat(correlations, ignore_index=True), pd.DataFrame(cells)
    result = Claimed(preserved(every), predicted(frame) if len(frame) else frame)
    tables = {CORRELATIONS: every, CELLS: frame, PRESERVED: result.preserved, PREDICTED: result.predicted}
    for file, table in tables.items():
        write_table(table, output / file)
    facts = {
        "command": "geometry claim",
        "settings": {**asdict(settings), "base": "", "tuned": tuned, "restored": "", "unrelated": NOTHING},
        "fine-tunings": told,
    }
    write_manifest(output / "manifest.json", facts)
    claim_page(result.preserved, result.predicted, frame, facts, output, cache_folder())
    return result


def _tuned_of(plan: Plan, run: Path, board: pd.DataFrame, label: str) -> Iterator[_Tuned]:
    """The fine-tunings that the run has finished; their bases are still what they were."""
    rows = [row for row in plan.rows if row.label == label and row.build]
    if not rows:
        labels = ", ".join(dict.fromkeys(row.label for row in plan.rows))
        raise InputError(f"{run} has no fine-tuned row '{label}'; it has {labels}. Name one with --tuned-row.")
    specs = {spec.id: spec for spec in plan.config.models}
    for row in rows:
        own = board[(board["model"] == row.model) & (board["method"] == label) & (board["seed"] == row.seed)]
        if own["status"].tolist() != ["ok"]:
            raise InputError(
                f"{run}: {row.model}, {label}, seed {row.seed} is not finished. Run `safebasin run` again."
            )
        spec = specs[row.model]
        source = find_model(spec, plan.config)
        if source is None or source.digest != own["model_digest"].item():
            raise InputError(
                f"{run}: the base {row.model} is not here any more, or is another one than when the run was made; its "
                "losses would be of other weights. Run it again."
            )
        base = row.model if is_sandbox(row.model) else source.location
        yield _Tuned(row, base, run / "checkpoints" / str(row.build))


def _cells(board: pd.DataFrame, row: Row, correlations: pd.DataFrame) -> Iterator[Mapping[str, object]]:
    """Of each repair of a fine-tuning: how much of the drift it undid, beside r given length on harmful prompts."""
    own = board[(board["model"] == row.model) & (board["status"] == "ok")]
    base = own.loc[own["stage"] == "base", "hrr"]
    tuned = own.loc[(own["method"] == row.label) & (own["seed"] == row.seed), "hrr"]
    if len(base) == 0 or not tuned.item() - base.iloc[0] >= LEAST_DRIFT:
        return
    drift = float(tuned.item() - base.iloc[0])
    harmful = correlations[correlations["set"] == HARMFUL].set_index("target")["partial"]
    about = {"model": row.model, "seed": row.seed, CONTROL: drift}
    about |= {name: float(harmful[name]) for name in PREDICTORS if name in harmful}
    for repair in own[(own["stage"] == "post-hoc") & (own["seed"] == row.seed)].to_dict("records"):
        yield about | {"method": repair["method"], "undone": 100 * (tuned.item() - repair["hrr"]) / drift}
