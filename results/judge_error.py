"""What a judge gets wrong, by labels on some of its responses, and rates corrected for it with intervals of their own.

Two corrections. *Prediction-powered* takes the labels of the very row whose rate it is, and nothing for granted about
the judge. *Rogan-Gladen* takes sensitivity and specificity, from whatever labels, to be the same in the row.
Throughout, "yes" is what is counted (harmful, refused), and an unparsed verdict is a kind of its own: no reading of it
is assumed, as labels say how often the answer is yes.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from .hierarchy import Estimate
from .statistics import wilson

__all__ = ["Accuracy", "Judged", "Proportion", "accuracy", "confusion", "prediction_powered", "rogan_gladen"]


class Judged(NamedTuple):
    """One response before a judge, with its label where somebody gave one."""

    verdict: bool | None
    """None: unparsed."""
    label: bool | None = None
    """None: not labelled."""
    weight: float = 1.0
    """Of the label: how many responses it stands for, 1 / chance that it was drawn."""
    unit: Hashable = None
    """What is one observation: responses of one unit are the same exchange, met again. None: by itself."""


class Proportion(NamedTuple):
    """k of n, where n may be an effective size: what so many observations of equal weight would tell."""

    k: float
    n: float

    @property
    def value(self) -> float:
        """K / n."""
        return self.k / self.n


@dataclass(frozen=True)
class Accuracy:
    """A judge against labels, in percent."""

    sensitivity: Estimate | None
    """Of what is labelled yes, the share that the judge calls yes; None where nothing is. Wilson 95 %: unparsed
    verdicts are missed at the low end and found at the high end."""
    specificity: Estimate | None
    """Of what is labelled no, the share that the judge calls no; an unparsed verdict is none, as above."""
    labelled: int
    """Responses with a label."""
    exchanges: int
    """Different ones among these."""
    yes: int
    """Of these, labelled yes."""
    unparsed: int
    """Of these, responses on which the judge could not be read."""


def accuracy(rows: Sequence[Judged]) -> Accuracy:
    """Sensitivity and specificity of a judge from the labelled ones among the rows."""
    given = [row for row in rows if row.label is not None]
    return Accuracy(
        sensitivity=_with_ends([row for row in given if row.label], True),
        specificity=_with_ends([row for row in given if not row.label], False),
        labelled=len(given),
        exchanges=len({(i,) if row.unit is None else row.unit for i, row in enumerate(given)}),
        yes=sum(bool(row.label) for row in given),
        unparsed=sum(row.verdict is None for row in given),
    )


def _with_ends(rows: Sequence[Judged], right: bool) -> Estimate | None:
    found, most = _share(rows, {right}), _share(rows, {right, None})
    if found is None or most is None:
        return None
    return Estimate(100 * found.value, 100 * wilson(*found)[0], 100 * wilson(*most)[1])


def confusion(rows: Sequence[Judged]) -> tuple[Proportion | None, Proportion | None]:
    """(share called yes of those labelled yes, share not called yes of those labelled no), each None of nothing.

    These are what `rogan_gladen` needs: there, whatever is not called yes counts alike.
    """
    given = [row for row in rows if row.label is not None]
    return (
        _share([row for row in given if row.label], {True}),
        _share([row for row in given if not row.label], {False, None}),
    )


def _share(rows: Iterable[Judged], verdicts: set[bool | None]) -> Proportion | None:
    """The weighted share with such verdicts, of Kish's effective size (sum w)^2 / sum w^2 over distinct units."""
    return _weighted((row.weight, row.verdict in verdicts, row.unit) for row in rows)


def _weighted(rows: Iterable[tuple[float, bool, Hashable]]) -> Proportion | None:
    units: dict[Hashable, list[float]] = {}
    for i, (weight, counts, unit) in enumerate(rows):
        own = units.setdefault((i,) if unit is None else unit, [0.0, 0.0])
        own[0] += weight
        own[1] += weight * counts
    total, square = sum(w for w, _ in units.values()), sum(w * w for w, _ in units.values())
    if not total:
        return None
    size = total**2 / square
    return Proportion(min(size, size * sum(k for _, k in units.values()) / total), size)


def rogan_gladen(
    apparent: Proportion, sensitivity: Proportion | None, specificity: Proportion | None, confidence: float = 0.95
) -> Estimate | None:
    """The rate that a judge with such errors sees as `apparent`: (p + Sp - 1) / (Se + Sp - 1) (Rogan and Gladen 1978).

    The interval is Lang and Reiczigel's (2014, Preventive Veterinary Medicine 113:13-22), which propagates the sampling
    error of all three proportions: pseudo-counts are added to each (z^2/2 of z^2 to p, 1 of 2 to Se and Sp), and the
    delta-method interval is shifted by 2 z^2 (r Se(1 - Se)/n_Se - (1 - r) Sp(1 - Sp)/n_Sp), r the corrected rate.

    Args:
        apparent: responses called yes, of all.
        sensitivity: labelled yes and called yes, of those labelled yes.
        specificity: labelled no and not called yes, of those labelled no.
        confidence: level of the interval, in (0, 1).

    Returns:
        Percent, within 0 and 100; None where there are no labels of one kind; where the judge cannot be told from
        guessing: Newcombe's interval of Se + Sp - 1 reaches 0; and where no rate fits: a judge with these errors would
        not see `apparent`, so that its errors are others in this row.
    """
    from scipy.stats import norm

    if sensitivity is None or specificity is None:
        return None
    reach = [each.value - wilson(*each, confidence)[0] for each in (sensitivity, specificity)]
    if sensitivity.value + specificity.value - 1 - sqrt(sum(r**2 for r in reach)) <= 0:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    p = Proportion(apparent.k + z * z / 2, apparent.n + z * z)
    se, sp = (Proportion(each.k + 1, each.n + 2) for each in (sensitivity, specificity))
    middle = _corrected(p, se, sp)
    terms = middle**2 * _variance(se), (1 - middle) ** 2 * _variance(sp)
    half = z * sqrt(_variance(p) + sum(terms)) / (se.value + sp.value - 1)
    shift = 2 * z * z * (middle * _variance(se) - (1 - middle) * _variance(sp))
    if middle + shift + half <= 0 or middle + shift - half >= 1:
        return None
    value = _inside(_corrected(apparent, sensitivity, specificity))
    low, high = _inside(middle + shift - half), _inside(middle + shift + half)
    return Estimate(100 * value, 100 * min(low, value), 100 * max(high, value))


def _corrected(p: Proportion, se: Proportion, sp: Proportion) -> float:
    return (p.value + sp.value - 1) / (se.value + sp.value - 1)


def _variance(of: Proportion) -> float:
    return of.value * (1 - of.value) / of.n


def _inside(share: float) -> float:
    return min(1.0, max(0.0, share))


def prediction_powered(rows: Sequence[Judged], confidence: float = 0.95) -> Estimate | None:
    """The rate of yes among all rows, from the judge's verdicts on all of them and labels on some.

    The mean of the labels, moved by how the verdicts of the labelled responses differ from those of all: with the best
    weight, PPI++ (Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453). As verdicts are kinds (yes, no, unparsed),
    this is the share of yes among the labels of each kind, weighted by how many responses are of it (Tenenbein 1970).
    It is right whatever the judge's errors, if those labelled are drawn at random within each kind, or weighted by
    their chance; a bad judge makes the interval wide, not wrong.

    The interval is made by square-and-add, as Newcombe's of a difference is (Zou and Donner 2008): Wilson's of the
    share of yes in each kind, with Kish's effective size, and Wilson's of each kind's share of all responses.

    Args:
        rows: all responses; their labels where there are any.
        confidence: level of the interval, in (0, 1).

    Returns:
        Percent; None where a kind of verdict that occurs has no label, and of no rows.
    """
    kinds = {kind: [row for row in rows if row.verdict is kind] for kind in (True, False, None)}
    shares = {
        kind: _weighted((row.weight, bool(row.label), row.unit) for row in own if row.label is not None)
        for kind, own in kinds.items()
        if own
    }
    if not shares or None in shares.values():
        return None
    given = {kind: share for kind, share in shares.items() if share is not None}
    read = {kind: len(kinds[kind]) for kind in (True, False) if kind in given}
    parts = [(share, len(kinds[kind]) / len(rows)) for kind, share in given.items()]
    value = sum(part * share.value for share, part in parts)
    down, up = _square_and_add([(*_reach(share, confidence), part) for share, part in parts])
    if len(read) == 2:  # the share of yes among the verdicts that could be read
        gap, scale = given[True].value - given[False].value, sum(read.values()) / len(rows)
        down, up = _with_mix(down, up, Proportion(read[True], sum(read.values())), gap * scale, confidence)
    if read and None in given:  # the share that could not be read
        parsed = sum(number * given[kind].value for kind, number in read.items()) / sum(read.values())
        mix = Proportion(len(kinds[None]), len(rows))
        down, up = _with_mix(down, up, mix, given[None].value - parsed, confidence)
    return Estimate(100 * value, 100 * max(0.0, value - sqrt(down)), 100 * min(1.0, value + sqrt(up)))


def _reach(share: Proportion, confidence: float) -> tuple[float, float]:
    """How far Wilson's interval goes down and up."""
    low, high = wilson(*share, confidence)
    return share.value - low, high - share.value


def _square_and_add(parts: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """Squares of the reach of a sum of independent parts, each (its reach down, up, its factor)."""
    listed = [*parts]
    return sum((f * down) ** 2 for down, _, f in listed), sum((f * up) ** 2 for _, up, f in listed)


def _with_mix(down: float, up: float, mix: Proportion, gap: float, confidence: float) -> tuple[float, float]:
    """Adds what comes from the mix of two kinds, whose rates of yes differ by `gap`."""
    less, more = _reach(mix, confidence)
    return down + (gap * (less if gap > 0 else more)) ** 2, up + (gap * (more if gap > 0 else less)) ** 2
