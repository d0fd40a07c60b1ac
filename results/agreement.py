"""Agreement of two judges on the same responses: Cohen's kappa, Gwet's AC1, and where they disagree.

Both coefficients are of responses that both judges could be read on; what was unparsed is counted beside them, and the
share of agreement is given with those counted as disagreements (low) and as agreements (high). Intervals are jackknives
over prompts: the answers of several methods to one prompt are not independent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hierarchy import Estimate
from .judged import FACETS, JudgedRow, facets_of, says

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("AGREEMENT", "DISAGREEMENTS", "Agreement", "agree", "agreement_table", "cohen_kappa", "disagreements"),
    "gwet_ac1",
]

Counts = NDArray[Any]
"""[categories, categories]: first judge's verdict by second judge's."""
Coefficient = Callable[[Counts], float | None]
_ENDS = ("", "_low", "_high")
AGREEMENT = (
    *("model", "facet", "task", "category", "judge_a", "judge_b", "n", "both", "only_a", "only_b", "neither"),
    *("unparsed_a", "unparsed_b"),
    *(f"{name}{end}" for name in ("agreement", "kappa", "ac1") for end in _ENDS),
)
"""Columns of `agreement_table`."""
DISAGREEMENTS = (
    *("model", "method", "seed", "task", "doc_id", "facet", "judge_a", "verdict_a", "judge_b", "verdict_b"),
    *("categories_a", "categories_b"),
)
"""Columns of `disagreements`."""
_WORDS = {
    ("harm", True): "harmful",
    ("harm", False): "safe",
    ("refusal", True): "refused",
    ("refusal", False): "answer",
}


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same n responses, of a question with the answers yes, no and unparsed."""

    n: int
    both: int
    """Responses to which both say yes."""
    only_a: int
    only_b: int
    neither: int
    unparsed_a: int
    """Responses on which the first judge could not be read; some of these may be unparsed for the second, too."""
    unparsed_b: int
    agreement: Estimate
    """Same verdict, percent of those parsed by both; ends: of all n, unparsed ones as disagreement, as agreement."""
    kappa: Estimate | None
    """Cohen's, with a 95 % interval (NaN where nothing varies); None where it is not defined."""
    ac1: Estimate | None
    """Gwet's; None of no response."""


class _Pair(NamedTuple):
    """One response before two judges."""

    prompt: Hashable
    a: bool | None
    b: bool | None
    categories_a: tuple[str, ...] = ()
    categories_b: tuple[str, ...] = ()


def cohen_kappa(table: Counts) -> float | None:
    """Cohen's kappa (1960): (agreement - chance) / (1 - chance), chance from the two judges' own rates.

    Args:
        table: [q, q] counts.

    Returns:
        None where it is not defined: no response, or both judges say the same one thing of all of them.
    """
    from statsmodels.stats.inter_rater import cohens_kappa

    total = table.sum()
    if not total or (table.sum(0) * table.sum(1)).sum() == total**2:
        return None
    return float(cohens_kappa(table, return_results=False))


def gwet_ac1(table: Counts) -> float | None:
    """Gwet's AC1 (2008, British Journal of Mathematical and Statistical Psychology 61:29-48).

    (agreement - chance) / (1 - chance), where chance is sum(p_k (1 - p_k)) / (q - 1), p_k the mean of both judges'
    shares of category k. Unlike kappa it stays near the agreement where nearly all responses are of one kind.

    Args:
        table: [q, q] counts, q at least 2.

    Returns:
        None of no response.
    """
    total = table.sum()
    if not total:
        return None
    shares = (table.sum(0) + table.sum(1)) / (2 * total)
    chance = float((shares * (1 - shares)).sum()) / (len(table) - 1)
    return float((np.trace(table) / total - chance) / (1 - chance))


def agree(a: Sequence[bool | None], b: Sequence[bool | None], prompts: Sequence[Hashable] | None = None) -> Agreement:
    """Compares two judges' verdicts on the same responses.

    Args:
        a: yes, no, or None where the verdict was unparsed.
        b: the other judge's, in the same order.
        prompts: which prompt each response answers; None where each answers one of its own.

    Raises:
        ValueError: the lengths differ.
    """
    return _agreement(zip(range(len(a)) if prompts is None else prompts, a, b, strict=True))


def _agreement(responses: Iterable[tuple[Hashable, bool | None, bool | None]]) -> Agreement:
    """Compares two judges on responses, each (prompt, the first one's verdict, the other's)."""
    empty = (0, 0, 0, 0)
    tables: dict[Hashable, tuple[int, ...]] = {}
    alike: dict[tuple[int, ...], tuple[int, ...]] = {}  # few tables are unlike, and prompts may be many
    n = unparsed_a = unparsed_b = 0
    for prompt, x, y in responses:
        n, unparsed_a, unparsed_b = n + 1, unparsed_a + (x is None), unparsed_b + (y is None)
        if x is not None and y is not None:
            place = 2 * (not x) + (not y)
            own = tuple(count + (i == place) for i, count in enumerate(tables.get(prompt, empty)))
            tables[prompt] = alike.setdefault(own, own)
    kinds = Counter(tables.values())
    table = np.sum([np.multiply(kind, count) for kind, count in kinds.items()] or [empty], axis=0).reshape(2, 2)
    parsed, same = int(table.sum()), int(np.trace(table))
    share = 100 * same / parsed if parsed else float("nan")
    ends = (100 * same / n, 100 * (same + n - parsed) / n) if n else (float("nan"),) * 2
    both, only_a, only_b, neither = map(int, table.ravel())
    return Agreement(
        *(n, both, only_a, only_b, neither),
        unparsed_a=unparsed_a,
        unparsed_b=unparsed_b,
        agreement=Estimate(share, *ends),
        kappa=_jackknifed(cohen_kappa, table, kinds),
        ac1=_jackknifed(gwet_ac1, table, kinds),
    )


def _jackknifed(
    coefficient: Callable[[Counts], float | None], table: Counts, kinds: Mapping[tuple[int, ...], int]
) -> Estimate | None:
    """The coefficient with the interval of the delete-one-prompt jackknife; without ends where nothing varies.

    Args:
        coefficient: of a table.
        table: of all prompts together.
        kinds: table of a prompt -> how many prompts have it.
    """
    from scipy.stats import t

    value, number = coefficient(table), sum(kinds.values())
    if value is None:
        return None
    without = [(coefficient(table - np.reshape(kind, (2, 2))), count) for kind, count in kinds.items()]
    found = np.repeat([np.nan if left is None else left for left, _ in without], [count for _, count in without])
    spread = float(np.sqrt((number - 1) / number * ((found - found.mean()) ** 2).sum()))
    if not spread > 0:  # NaN where one prompt decides whether it is defined
        return Estimate(value, float("nan"), float("nan"))
    reach = float(t.ppf(0.975, number - 1)) * spread
    return Estimate(value, max(-1.0, value - reach), min(1.0, value + reach))


def agreement_table(rows: Sequence[JudgedRow], over_worlds: bool) -> pd.DataFrame:
    """Agreement of every two judges on all rows' responses.

    Args:
        rows: of one run.
        over_worlds: whether the models are replicas, and so counted together.

    Returns:
        `AGREEMENT`: per model (or all worlds) and facet, for every two judges that decide it, a row over all tasks that
        count it (`task` empty), one per task where there are several, and one per hazard category that a judge named:
        `judge_a` is then the judge that named it, and the responses are those that it calls safe, or harmful in this
        category. So no code of one judge is ever set against the same code of another, which may mean something else.
        Shares in percent; a coefficient that is not defined, and an interval of what does not vary, are empty.
    """
    import pandas as pd

    found = []
    for model, own in _groups(rows, over_worlds):
        for facet in facets_of(own):
            judges = [judge.name for judge in own[0].judges if facet in judge.decides]
            tasks = list(dict.fromkeys(t.task for row in own for t in row.tasks if FACETS[t.role] == facet))
            for a, b in combinations(judges, 2):
                for task in ("", *(tasks if len(tasks) > 1 else ())):
                    about = (model, facet, task, "", a, b)
                    found.append(_cells(about, _pairs(own, facet, a, b, task)))
            for a, b in permutations(judges, 2) if facet == "harm" else ():
                found += _by_category(model, own, a, b)
    return pd.DataFrame(found, columns=list(AGREEMENT))


def _groups(rows: Sequence[JudgedRow], over_worlds: bool) -> Iterator[tuple[str, list[JudgedRow]]]:
    models = list(dict.fromkeys(row.model for row in rows))
    if over_worlds:
        yield f"{len(models)} worlds", list(rows)
        return
    for model in models:
        yield model, [row for row in rows if row.model == model]


def _pairs(rows: Sequence[JudgedRow], facet: str, a: str, b: str, task: str = "") -> Iterator[_Pair]:
    for row in rows:
        names = [judge.name for judge in row.judges]
        one, other = names.index(a), names.index(b)
        for each in row.tasks:
            if FACETS[each.role] != facet or (task and each.task != task):
                continue
            for (doc_id, x), (_, y) in zip(says(each, one, facet), says(each, other, facet), strict=True):
                verdicts = each.verdicts[doc_id]
                categories = verdicts[one].categories, verdicts[other].categories
                yield _Pair((row.model, each.task, doc_id), x, y, *categories)


def _by_category(model: str, rows: Sequence[JudgedRow], a: str, b: str) -> Iterator[dict[str, Any]]:
    named = {category for pair in _pairs(rows, "harm", a, b) if pair.a for category in pair.categories_a}
    for category in sorted(named, key=lambda name: (len(name), name)):
        pairs = _pairs(rows, "harm", a, b)
        own = (pair for pair in pairs if pair.a is False or (pair.a and category in pair.categories_a))
        yield _cells((model, "harm", "", category, a, b), own)


def _cells(about: tuple[str, ...], pairs: Iterable[_Pair]) -> dict[str, Any]:
    found = _agreement((pair.prompt, pair.a, pair.b) for pair in pairs)
    row: dict[str, Any] = dict(zip(AGREEMENT[:6], about, strict=True))
    row |= {name: getattr(found, name) for name in AGREEMENT[6:13]}
    for name in ("agreement", "kappa", "ac1"):
        value = getattr(found, name) or (None, None, None)
        row |= {f"{name}{end}": number for end, number in zip(_ENDS, value, strict=True)}
    return row


def disagreements(rows: Sequence[JudgedRow]) -> pd.DataFrame:
    """Every response on which two judges say different things; an unparsed verdict says nothing.

    Returns:
        `DISAGREEMENTS`, without texts: report.html shows them, folded.
    """
    import pandas as pd

    return pd.DataFrame([each for row in rows for each in _disagreements(row)], columns=list(DISAGREEMENTS))


def _disagreements(row: JudgedRow) -> Iterator[tuple[Any, ...]]:
    for task in row.tasks:
        facet = FACETS[task.role]
        numbers = [i for i, judge in enumerate(row.judges) if facet in judge.decides]
        for one, other in combinations(numbers, 2):
            for (doc_id, x), (_, y) in zip(says(task, one, facet), says(task, other, facet), strict=True):
                if x is not None and y is not None and x != y:
                    verdicts = task.verdicts[doc_id]
                    yield (
                        row.model, row.method, row.seed, task.task, doc_id, facet,
                        row.judges[one].name, _WORDS[facet, x], row.judges[other].name, _WORDS[facet, y],
                        " ".join(verdicts[one].categories), " ".join(verdicts[other].categories),
                    )  # fmt: skip
