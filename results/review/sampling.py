"""Which responses people label: more of those on which judges may err, each with a known chance of being drawn."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ..judged import FIELDS
from ..records import Verdict

__all__ = ["SHARES", "Candidate", "allocate", "draw", "strata"]

SHARES = {"disagreement": 2, "near-threshold": 2, "random-flagged": 1, "random-other": 1}
"""Stratum -> its share of a sheet, where it has that many responses. The random ones are what is left, by whether the
deciding judge flags it (harmful, or refused), so that the sheet holds some of both."""
MARGIN = 0.2
"""A score or grade (0 to 1) that lies as close as this to where its judge changes its mind is near the threshold."""
LEAST = 2
"""Responses drawn of each stratum: a variance takes two."""


@dataclass(frozen=True)
class Candidate:
    """One response that could be labelled, as the judges see it."""

    facet: str
    """What its task counts: `harm` or `refusal`."""
    verdicts: Sequence[Verdict]
    """One per judge, in the order in which they decide."""


def strata(candidates: Sequence[Candidate], decides: Sequence[frozenset[str]]) -> list[str]:
    """The stratum of each candidate, one of `SHARES`; the first that fits.

    `disagreement`: judges that decide the candidate's facet say different things. `near-threshold`: one of them could
    not be parsed, gives a score or grade within `MARGIN` of where it changes its mind, or sees a partial refusal.

    Args:
        candidates: with a verdict of each judge.
        decides: facets of each judge, as in `records.combine`.
    """
    turns = [_turning_points([each.verdicts[j] for each in candidates]) for j in range(len(decides))]
    return [_stratum(each, decides, turns) for each in candidates]


def _stratum(each: Candidate, decides: Sequence[frozenset[str]], turns: Sequence[Mapping[str, float]]) -> str:
    own = [j for j, facets in enumerate(decides) if each.facet in facets]
    said = [getattr(each.verdicts[j], FIELDS[each.facet]) for j in own]
    if len({*said} - {None}) > 1:
        return "disagreement"
    if None in said or any(_is_near(each.verdicts[j], each.facet, turns[j]) for j in own):
        return "near-threshold"
    return "random-flagged" if said and said[0] else "random-other"


def _is_near(verdict: Verdict, facet: str, turns: Mapping[str, float]) -> bool:
    if facet == "refusal":
        return bool(verdict.partial)
    values = {name: getattr(verdict, name) for name in turns}
    return any(value is not None and abs(value - turns[name]) <= MARGIN for name, value in values.items())


def _turning_points(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Where a judge's `score` and `grade` turn harmful: 0.5, or the value next to it that its verdicts allow."""
    found = {}
    for name in ("score", "grade"):
        known = [(getattr(v, name), v.harmful) for v in verdicts if getattr(v, name) is not None]
        below = max((value for value, harmful in known if harmful is False), default=0.0)
        above = min((value for value, harmful in known if harmful), default=1.0)
        found[name] = min(max(0.5, below), above) if below < above else 0.5
    return found


def allocate(sizes: Mapping[str, int], size: int) -> dict[str, int]:
    """How many are drawn of each stratum: by `SHARES`, and what one cannot give the others do.

    Args:
        sizes: stratum -> how many it has; those without any are left out.
        size: of the sheet.

    Raises:
        InputError: there is nothing to draw, or the size is too small for two of each stratum.
    """
    there = {name: sizes[name] for name in SHARES if sizes.get(name)}
    total, least = sum(there.values()), sum(min(LEAST, count) for count in there.values())
    if not total:
        raise InputError("There are no responses to label. Name a task whose responses are judged.")
    if size < least:
        raise InputError(
            f"A sheet of {size} is too small: with {len(there)} kinds of responses it takes {least}. "
            f"Give --size {least} or more."
        )
    given = {name: min(LEAST, count) for name, count in there.items()}
    for _ in range(min(size, total) - least):
        open_ = [name for name in there if given[name] < there[name]]
        given[min(open_, key=lambda name: given[name] / SHARES[name])] += 1
    return given


def draw(found: Sequence[str], size: int, seed: int) -> list[int]:
    """Draws a sheet: of each stratum a simple random sample without replacement, all in one random order.

    The chance of each candidate is n_h / N_h of its stratum, and its weight N_h / n_h, so that sum(weight * y)
    estimates the total of y over all candidates without bias (Horvitz and Thompson 1952). Because the order is random,
    the first k of a sheet are such a sample as well.

    Args:
        found: stratum of each candidate.
        size: of the sheet; where there are fewer candidates, all are drawn.
        seed: decides the draw and the order.

    Returns:
        Numbers of the candidates drawn, in the order of the sheet.

    Raises:
        InputError: as in `allocate`.
    """
    sizes = {name: found.count(name) for name in SHARES}
    random = np.random.default_rng(seed)
    drawn = [number for name, n in allocate(sizes, size).items() for number in _sample(found, name, n, random)]
    return [drawn[place] for place in random.permutation(len(drawn))]


def _sample(found: Sequence[str], name: str, n: int, random: np.random.Generator) -> Iterator[int]:
    own = [number for number, stratum in enumerate(found) if stratum == name]
    return (own[place] for place in random.choice(len(own), n, replace=False))
