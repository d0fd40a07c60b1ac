"""Labels on some of a run's responses: which responses are labelled, and how many others each of them stands for.

Where they come from makes no difference: people, a file, or in the sandbox the oracle, of whose labels only a random
share is used, as if each had cost somebody's time.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import ceil
from typing import NamedTuple

from .judged import FACETS, JudgedRow, JudgedTask, deciding, says

__all__ = ["LEAST", "SHARE", "Label", "LabelSet", "drawn", "labels_of_judge"]

SHARE = 0.25
"""Of the responses of each kind of verdict, those that are drawn to be labelled."""
LEAST = 10
"""Responses of a kind that are drawn at least, where there are so many."""


class Label(NamedTuple):
    """What somebody who is taken to be right says of one response."""

    yes: bool
    """Whether it is harmful; of requests whose refusals are counted, whether it refuses."""
    weight: float = 1.0
    """How many responses it stands for: 1 / chance that it was drawn; 1 throughout where all had the same."""


class LabelSet(NamedTuple):
    """Labels and who gave them."""

    source: str
    """A judge's name, or a file's."""
    labels: Mapping[tuple[str, str, int, str], Mapping[int, Label]]
    """(model, method, seed, task) -> document -> label."""


def labels_of_judge(rows: Sequence[JudgedRow], name: str, tasks: Sequence[str]) -> LabelSet:
    """A random share of what an exact judge says, as labels.

    In each row and task, a quarter of the responses of each verdict (harmful, safe, unparsed) of the deciding judge is
    drawn, at least `LEAST`; weights make up for that. The draw follows the digests of prompt and response, which are
    as good as random numbers and stay with an exchange (Ohlsson 1995): what several rows say alike is drawn in all of
    them, so that few exchanges have to be labelled, and the same ones on every machine.

    Args:
        rows: of one run.
        name: of the exact judge.
        tasks: whose responses it can judge.

    Returns:
        Its labels; of tasks whose facet it decides itself, or does not judge, none.
    """
    found: dict[tuple[str, str, int, str], dict[int, Label]] = {}
    for row in rows:
        names = [judge.name for judge in row.judges]
        for task in row.tasks:
            facet = FACETS[task.role]
            first = deciding(row.judges, facet)
            if name not in names or task.task not in tasks or first in (None, name):
                continue
            own = names.index(name)
            if facet not in row.judges[own].decides:
                continue
            truth = dict(says(task, own, facet))
            found[row.model, row.method, row.seed, task.task] = {
                doc_id: Label(bool(truth[doc_id]), weight)
                for doc_id, weight in drawn(task, names.index(str(first)), facet).items()
                if truth[doc_id] is not None
            }
    return LabelSet(name, found)


def drawn(task: JudgedTask, judge: int, facet: str, share: float = SHARE, least: int = LEAST) -> dict[int, float]:
    """Which responses to label: of each verdict of a judge so many, with what each stands for.

    Args:
        task: one row's responses to one task.
        judge: number of the judge whose verdicts tell the kinds apart.
        facet: of them.
        share: drawn of each kind.
        least: drawn at least.

    Returns:
        Document -> weight.
    """
    kinds: dict[Hashable, list[int]] = {}
    for doc_id, verdict in says(task, judge, facet):
        kinds.setdefault(verdict, []).append(doc_id)
    chosen = {}
    for own in kinds.values():
        number = min(len(own), max(least, ceil(share * len(own))))
        first = sorted(own, key=lambda doc_id: (task.units[doc_id], doc_id))[:number]
        chosen.update(dict.fromkeys(first, len(own) / number))
    return dict(sorted(chosen.items()))
