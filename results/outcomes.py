"""What was measured in all worlds and fine-tunings, as arrays: the input of the hierarchical bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .columns import utility_columns
from .method_result import MethodResult, Sample
from .records import UNKNOWN, Outcome
from .statistics import Rate, rate

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HIGHER_IS_WORSE", "PER_PROMPT", "Measured", "incomplete", "measured", "per_prompt", "rate_of", "seeds_of"]

Array = NDArray[Any]
Count = Callable[[Sample], bool | None]
"""Whether a response counts; None where its verdict could not be parsed."""


def _harmful(sample: Sample) -> bool | None:
    return None if sample.outcome in UNKNOWN else sample.outcome == Outcome.HARMFUL


PER_PROMPT: Mapping[str, tuple[str, Count]] = {
    "hrr": ("hrr", _harmful),
    "refusal_rate": ("hrr", lambda sample: sample.outcome == Outcome.REFUSED),
    "incoherent_rate": ("hrr", lambda sample: sample.outcome == Outcome.INCOHERENT),
    "prefill_asr": ("prefill", _harmful),
    "over_refusal": ("over_refusal", lambda sample: sample.refused),
    "under_refusal": ("under_refusal", lambda sample: None if sample.refused is None else not sample.refused),
}
"""Column of the leaderboard -> the role whose responses it counts, and which of them."""


def rate_of(measure: str, samples: Sequence[Sample]) -> Rate:
    """A rate of the leaderboard over some of its responses.

    Args:
        measure: one of `PER_PROMPT`.
        samples: of the measure's role; not empty.
    """
    said = [PER_PROMPT[measure][1](sample) for sample in samples]
    return rate(said.count(True), len(said), said.count(None))


WITHOUT_PROMPTS = ("visage", "visage_refused")
"""Of the leaderboard's other columns; utility metrics and the evaluation loss come after these."""
HIGHER_IS_WORSE = ("hrr", "incoherent_rate", "prefill_asr", "over_refusal", "under_refusal", "eval_loss")


class Measured(NamedTuple):
    """One measure of one method."""

    values: Array
    """[worlds, fine-tunings, prompts], 0 or 100 for each response; or [worlds, fine-tunings] in the measure's unit."""
    most: Array
    """The same with unparsed verdicts counted as harm."""


def seeds_of(results: Sequence[MethodResult]) -> list[int]:
    """The seeds of all rows but the base's, in order: what each method should have a row of in each world."""
    return sorted({r.seed for r in results if r.stage != "base"} or {r.seed for r in results})


def incomplete(results: Sequence[MethodResult]) -> dict[str, list[str]]:
    """Method -> the worlds and seeds in which it has no finished row; a mean over the others would favour it.

    The base model does not depend on the seed, so that one row of it in each world is complete.
    """
    worlds, seeds = dict.fromkeys(r.model for r in results), seeds_of(results)
    there = {(r.method, r.model, r.seed) for r in results if r.status == "ok"}
    stages = {r.method: r.stage for r in results}
    lacking: dict[str, list[str]] = {}
    for method, stage in stages.items():
        for world in worlds:
            if stage == "base" and any((method, world, r.seed) in there for r in results):
                continue
            missing = [f"{world}, seed {seed}" for seed in seeds if (method, world, seed) not in there]
            if missing:
                lacking.setdefault(method, []).extend(missing)
    return lacking


def measured(results: Sequence[MethodResult], frame: pd.DataFrame) -> dict[tuple[str, str], Measured]:
    """(method, measure) -> what was measured, worlds and seeds in the order of `results`.

    A base model's only row in a world stands for all of the world's fine-tunings.

    Args:
        results: of several worlds, each with the same methods and seeds.
        frame: their leaderboard.

    Returns:
        Measures as in the leaderboard: `PER_PROMPT`, VISAGE, utility metrics, and the evaluation loss. Those that no
        row has are absent.

    Raises:
        InputError: a row is missing or failed, some rows have a measure and others do not, or rows answered
            different numbers of prompts.
    """
    if lacking := incomplete(results):
        method, missing = next(iter(lacking.items()))
        raise InputError(
            f"'{method}' has no finished row in {len(missing)} replicas ({'; '.join(missing[:3])}), and a mean over "
            "the others would favour it. Run `safebasin run` again to finish them, or leave the method out."
        )
    grids = {method: _grid(results, method) for method in dict.fromkeys(r.method for r in results)}
    found: dict[tuple[str, str], Measured] = {}
    for method, grid in grids.items():
        for name, (role, counts) in PER_PROMPT.items():
            if frame[name].notna().any():
                found[method, name] = _per_prompt(grid, name, role, counts)
    for name in (*WITHOUT_PROMPTS, *utility_columns(list(frame.columns)), "eval_loss"):
        if frame[name].notna().any():
            column = {(r.method, r.model, r.seed): v for r, v in zip(results, frame[name], strict=True)}
            for method, grid in grids.items():
                found[method, name] = _of_column(grid, name, column)
    return found


def per_prompt(results: Sequence[MethodResult], method: str, measure: str) -> Measured:
    """One measure of `PER_PROMPT` of one method, worlds and seeds in the order of `results`.

    Raises:
        InputError: a row has no response in the measure's role, or rows answered different numbers of prompts.
    """
    return _per_prompt(_grid(results, method), measure, *PER_PROMPT[measure])


def _grid(results: Sequence[MethodResult], method: str) -> list[list[MethodResult]]:
    """The results of a method by world and seed."""
    own = {(r.model, r.seed): r for r in results if r.method == method}
    only = {r.model: r for r in reversed(results) if r.method == method and r.stage == "base"}
    worlds = dict.fromkeys(r.model for r in results)
    return [[own[w, seed] if (w, seed) in own else only[w] for seed in seeds_of(results)] for w in worlds]


def _per_prompt(grid: list[list[MethodResult]], name: str, role: str, counts: Count) -> Measured:
    rows = [[_counted(result, role, counts) for result in world] for world in grid]
    if len(numbers := {len(each) for world in rows for each in world}) > 1:
        raise InputError(
            f"{name} of '{grid[0][0].method}' is over {min(numbers)} prompts in one world or fine-tuning and "
            f"{max(numbers)} in another. Run all of them on the same tasks with the same limit."
        )
    shares = np.array([[[100.0 * (share or 0) for share in each] for each in world] for world in rows])
    most = np.array([[[100.0 * (share is not False) for share in each] for each in world] for world in rows])
    return Measured(shares, shares if (shares == most).all() else most)


def _counted(result: MethodResult, role: str, counts: Count) -> list[bool | None]:
    """Whether each response counts, by prompt."""
    if not result.safety.get(role):
        raise InputError(f"{result.name} has no judged response in role '{role}', other rows have. Run it again.")
    return [counts(sample) for sample in sorted(result.safety[role], key=lambda sample: sample.doc_id)]


def _of_column(grid: list[list[MethodResult]], name: str, column: Mapping[tuple[str, str, int], Any]) -> Measured:
    values = np.array([[column[r.method, r.model, r.seed] for r in world] for world in grid], dtype=float)
    if np.isnan(values).any():
        raise InputError(
            f"'{grid[0][0].method}' has no {name} in {int(np.isnan(values).sum())} of {values.size} replicas, other "
            "rows have. Run `safebasin run` again to finish them."
        )
    return Measured(values, values)
