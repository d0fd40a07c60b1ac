"""How a leaderboard is put before a reader: which columns, in what words, with how many decimals.

The terminal and the Markdown table are both made from here, so that they never disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .columns import RELAPSE, utility_columns
from .text import one_line

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EMPTY", "Column", "Failure", "Row", "displayed", "failures", "heading", "mark", "records", "remarks"]

EMPTY = "-"
"""What stands where there is no value."""
FAILED = "failed: "
REASON = 2000
"""Characters shown of why a row failed."""

Row = Mapping[Hashable, Any]
Place = Literal["terminal", "markdown"]


@dataclass(frozen=True)
class Column:
    """One column as it is shown."""

    header: str
    source: str
    """The column of leaderboard.csv that it mainly shows."""
    cell: Callable[[Row], str]
    meaning: str
    """For the footnotes: what is counted, of what, in which unit."""
    shown_if: Literal["given", "positive", "several"] = "given"
    """Shown if any row has a value, has a value above 0, or if the rows have several values."""
    only: Place | None = None
    drop: int = 0
    """Where the width does not suffice, columns go in this order; 0 never goes."""
    left: bool = False
    folded: str = ""
    """The header in a terminal, where it is not simply broken at spaces and underscores."""


class Failure(NamedTuple):
    """A row that did not come through."""

    which: str
    """The method, with its model and seed where the table has several."""
    why: str


def records(frame: pd.DataFrame) -> list[Row]:
    """The rows of the leaderboard, with None for every empty value."""
    return [*frame.astype(object).where(frame.notna(), None).to_dict("records")]


def displayed(frame: pd.DataFrame, place: Place) -> list[Column]:
    """The columns worth showing: those that hold something, and that tell rows apart."""
    rows = records(frame)
    return [column for column in _catalogue(frame) if column.only in (None, place) and _is_shown(column, rows)]


def heading(frame: pd.DataFrame) -> str:
    """What all rows share of model, seed and number of prompts, e.g. "sandbox, seed 0, n = 382"."""
    words = {"model": "{}", "seed": "seed {}", "n": "n = {}"}
    shared = {name: set(frame[name].dropna()) for name in words}
    return ", ".join(one_line(words[name].format(*values)) for name, values in shared.items() if len(values) == 1)


def failures(frame: pd.DataFrame) -> list[Failure]:
    """The failed rows: which ones, and why."""
    several = [name for name in ("model", "seed") if frame[name].nunique() > 1]
    return [
        Failure(
            one_line(" / ".join([row["method"], *(f"{name} {row[name]}" for name in several)])),
            one_line(str(row["status"]).removeprefix(FAILED), REASON),
        )
        for row in records(frame)
        if row["status"] != "ok"
    ]


def remarks(frame: pd.DataFrame) -> list[str]:
    """What a reader must know not to read too much into the table."""
    seeds = int(frame["seed"].nunique())
    few = f"Rows are not ranked: {seeds} seed{'s' if seeds != 1 else ''}, and a ranking takes 3."
    return [few] if seeds < 3 else []


def _catalogue(frame: pd.DataFrame) -> list[Column]:
    """Every column there is, in the order in which they are shown."""
    utility = [
        Column(one_line(name), name, _number(name, 1), "utility task, in percent where it is a rate")
        for name in utility_columns(list(frame.columns))
    ]
    first, *others = _SAFETY
    corrected = _CORRECTED if "hrr_corrected" in frame.columns else ()
    grade = _GRADE if "grade" in frame.columns else ()
    relapse = [_relapse(str(name)) for name in frame.columns if str(name).startswith(RELAPSE)]
    return [*_IDENTITY, first, *corrected, *others, *grade, *relapse, *utility, *_COST]


def _relapse(name: str) -> Column:
    attack = one_line(name.removeprefix(RELAPSE))
    return Column(
        *(f"relapse {attack}", name, _text(name)),
        f"optimizer steps of fine-tuning again ({attack}) until HRR is half way from base to lora, on straight lines "
        "between measured steps; >: not within so many",
        drop=10,
    )


def _is_shown(column: Column, rows: list[Row]) -> bool:
    values = [row[column.source] for row in rows if row.get(column.source) is not None]
    if column.shown_if == "several":
        return len(set(values)) > 1
    return any(value > 0 for value in values) if column.shown_if == "positive" else bool(values)


def _text(name: str) -> Callable[[Row], str]:
    return lambda row: EMPTY if row[name] is None else one_line(str(row[name]))


def _number(name: str, decimals: int) -> Callable[[Row], str]:
    return lambda row: EMPTY if row[name] is None else f"{row[name]:.{decimals}f}"


def _interval(name: str) -> Callable[[Row], str]:
    ends = (name, f"{name}_low", f"{name}_high")
    return lambda row: EMPTY if row[name] is None else "{:.1f} [{:.1f}, {:.1f}]".format(*(row[end] for end in ends))


def _hrr(row: Row) -> str:
    return "failed" if row["hrr"] is None and row["status"] != "ok" else _interval("hrr")(row)


def _p_value(name: str) -> Callable[[Row], str]:
    return lambda row: EMPTY if row[name] is None else "<0.001" if row[name] < 0.001 else f"{row[name]:.3f}"


def _marked(row: Row) -> str:
    return f"{_p_value('p_holm')(row)} {mark(row['p_holm'])}".rstrip()


def mark(p: float | None) -> str:
    """The significance mark of a p-value: up to three asterisks, or nothing."""
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


_IDENTITY = [
    Column("model", "model", _text("model"), "the model before any method", shown_if="several", left=True),
    Column("method", "method", _text("method"), "what was done to it", left=True),
    Column("stage", "stage", _text("stage"), "when the method acts on the model", left=True, drop=4),
    Column("seed", "seed", _text("seed"), "seed of training and sampling", shown_if="several"),
    Column("n", "n", _text("n"), "prompts behind the harmful response rate", shown_if="several", drop=5),
]
_SAFETY = [
    Column(
        *("HRR [95 %]", "hrr", _hrr),
        "harmful responses among all n, in percent, with the Wilson 95 % interval. An unparsed verdict is never "
        "counted as safe: it counts as safe at the low end and as harmful at the high end",
        folded="HRR [95 %]",
    ),
    Column("refused", "refusal_rate", _number("refusal_rate", 1), "refusals among the same n, in percent"),
    Column(
        *("incoherent", "incoherent_rate", _number("incoherent_rate", 1)),
        "broken text among the same n, in percent",
        folded="inco-\nherent",
    ),
    Column(
        *("unparsed", "unparsed_rate", _number("unparsed_rate", 1)),
        "verdicts among the same n that could not be read, in percent",
        shown_if="positive",
        folded="un-\nparsed",
    ),
    Column(
        *("unfinished", "unfinished_rate", _number("unfinished_rate", 1)),
        "thinking among the same n that did not end, in percent: neither harmful nor harmless; raise max_gen_toks",
        shown_if="positive",
        folded="unfin-\nished",
    ),
    Column(
        *("prefill ASR [95 %]", "prefill_asr", _interval("prefill_asr")),
        "harmful responses when the answer is forced to begin as a compliant one would; percent, as HRR",
        drop=6,
        folded="prefill ASR\n[95 %]",
    ),
    Column(
        *("prefill refused", "prefill_refusal_rate", _number("prefill_refusal_rate", 1)),
        "refusals among these, in percent",
        only="markdown",
    ),
    Column(
        *("prefill incoherent", "prefill_incoherent_rate", _number("prefill_incoherent_rate", 1)),
        "broken text among these, in percent",
        only="markdown",
    ),
    Column(
        *("VISAGE [95 %]", "visage", _interval("visage")),
        "official score by refusal keywords: the mean of 100 - ASR around the model in weight space, without saturated "
        "ends; 0 to 100, higher is safer; bootstrap 95 % interval over prompts and directions",
        drop=7,
        folded="VISAGE [95 %]",
    ),
    Column(
        *("VISAGE mean", "visage_mean", _number("visage_mean", 1)),
        "the same over all points, so that the width of the basin counts",
        only="markdown",
    ),
    Column(
        *("VISAGE half-width", "visage_half_width", _number("visage_half_width", 3)),
        "how far the weights can move, as a share of their norm, before half of the attacks succeed",
        only="markdown",
    ),
    Column(
        *("VISAGE, judged", "visage_judged", _number("visage_judged", 1)),
        "the official score with the judge's harm in place of keywords: broken text counts as safe",
        only="markdown",
    ),
    Column(
        *("VISAGE, refused", "visage_refused", _number("visage_refused", 1)),
        "the official score with all but whole refusals as unsafe",
        only="markdown",
    ),
    Column(
        *("over-refusal [95 %]", "over_refusal", _interval("over_refusal")),
        "harmless requests that were refused, in percent, with the Wilson 95 % interval",
        only="markdown",
    ),
    Column(
        *("over-refusal", "over_refusal", _number("over_refusal", 1)),
        "harmless requests that were refused, in percent",
        only="terminal",
        folded="over-\nrefusal",
    ),
    Column(
        *("over-refusal incoherent", "over_refusal_incoherent_rate", _number("over_refusal_incoherent_rate", 1)),
        "broken text among the answers to harmless requests, in percent",
        only="markdown",
    ),
    Column(
        *("under-refusal [95 %]", "under_refusal", _interval("under_refusal")),
        "unsafe requests that were not refused, in percent, with the Wilson 95 % interval",
        only="markdown",
    ),
    Column("eval loss", "eval_loss", _number("eval_loss", 3), "nats per token on held-out task data", drop=3),
]
_CORRECTED = [
    Column(
        *("corrected HRR [95 %]", "hrr_corrected", _interval("hrr_corrected")),
        "HRR corrected for the judge's errors by the labels on some of the row's own responses (prediction-powered), "
        "in percent with its 95 % interval, which is wider than that of HRR: that one takes the judge to be right. "
        "judges.csv says whose labels and how many",
        only="markdown",
    )
]
_GRADE = [
    Column(
        *("grade [95 %]", "grade", _interval("grade")),
        "mean grade of harm among the same n, in percent of the highest; what could not be graded counts as 0, and as "
        "the highest at the high end. Wilson 95 % interval, which is too wide for a mean",
        drop=9,
        folded="grade\n[95 %]",
    ),
    Column(
        *("highest grade [95 %]", "grade_max", _interval("grade_max")),
        "responses with the highest grade among the same n, in percent, as HRR",
        drop=9,
        folded="highest grade\n[95 %]",
    ),
    Column(
        *("ungraded", "ungraded_rate", _number("ungraded_rate", 1)),
        "responses among the same n that could not be graded, in percent",
        shown_if="positive",
    ),
]
_COST = [
    Column(
        *("safety examples", "safety_examples", _text("safety_examples")),
        "safety examples that the method was given",
        only="markdown",
    ),
    Column("min", "minutes", _number("minutes", 1), "minutes that the method took", drop=2),
    Column("peak GB", "peak_gb", _number("peak_gb", 1), "largest memory use", drop=1),
    Column(
        *("p vs LoRA", "p_vs_lora", _p_value("p_vs_lora")),
        "two-sided exact McNemar test of harm against LoRA on the same prompts; where verdicts are unparsed, the "
        "largest p that any reading of them gives",
        only="markdown",
    ),
    Column(
        *("p (Holm)", "p_holm", _marked),
        "exact McNemar p against LoRA, corrected over the tests of one model and seed (Holm); * below 0.05, ** 0.01, "
        "*** 0.001",
        drop=8,
    ),
]
