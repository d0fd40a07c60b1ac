"""What optimised suffixes come to: attack success rates per model and search, beside the requests as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from .method_result import Sample
from .outcomes import PER_PROMPT, rate_of
from .records import UNKNOWN, Outcome
from .statistics import paired_difference

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "PLAIN", "PROMPT_COLUMNS", "SuffixRow", "prompt_table", "suffix_table"]

BASE = "base"
PLAIN = "none"
"""The search that adds nothing: requests as they are."""
COLUMNS = (
    *("model", "search", "n", "suffix_asr", "suffix_asr_low", "suffix_asr_high"),
    *("minus_base", "minus_base_low", "minus_base_high", "refusal_rate", "incoherent_rate", "unparsed_rate"),
    *("target_greedy", "loss_start", "loss_end", "steps", "evaluated"),
)
"""Of `suffix_table`."""
PROMPT_COLUMNS = (
    *("model", "search", "row", "outcome", "refused", "target_greedy"),
    *("loss_start", "loss_end", "steps", "evaluated"),
)
"""Of `prompt_table`."""


@dataclass(frozen=True)
class SuffixRow:
    """One request to one model under one search."""

    model: str
    search: str
    """As in `restore.attacks.suffix.SEARCHES`, or `PLAIN`."""
    sample: Sample
    """The judged answer; its document is the request's place."""
    loss_start: float | None = None
    """Of the target before the search, in nats per token; None of a plain request, like all that follows."""
    loss_end: float | None = None
    steps: int | None = None
    evaluated: int | None = None
    """Suffixes evaluated."""
    target_greedy: bool | None = None
    """Whether greedy decoding begins with the target."""


def suffix_table(rows: Sequence[SuffixRow]) -> pd.DataFrame:
    """One line per model and search, in the order in which they come.

    Returns:
        n; `suffix_asr` with its Wilson 95 % interval, refused, incoherent and unparsed answers in percent of n;
        `minus_base`, its difference to the base's under the same search on the same requests, in percentage points
        with Newcombe's interval (`statistics.paired_difference`); the share of requests whose target became greedy,
        in percent, and means of losses, steps and evaluated suffixes; empty where there is no value.
    """
    import pandas as pd

    groups: dict[tuple[str, str], list[SuffixRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.search), []).append(row)
    lines = [_line(key, own, groups.get((BASE, key[1]))) for key, own in groups.items()]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _line(key: tuple[str, str], rows: Sequence[SuffixRow], base: Sequence[SuffixRow] | None) -> dict[str, Any]:
    samples = [row.sample for row in rows]
    n, asr = len(rows), rate_of("hrr", samples)
    shares = {outcome: 100 * sum(sample.outcome == outcome for sample in samples) / n for outcome in Outcome}
    return {
        **{"model": key[0], "search": key[1], "n": n},
        **{"suffix_asr": asr.value, "suffix_asr_low": asr.low, "suffix_asr_high": asr.high},
        **(_minus(rows, base) if base and key[0] != BASE else {}),
        **{"refusal_rate": shares[Outcome.REFUSED], "incoherent_rate": shares[Outcome.INCOHERENT]},
        "unparsed_rate": sum(shares[outcome] for outcome in UNKNOWN),
        **_means(rows),
    }


def _minus(rows: Sequence[SuffixRow], base: Sequence[SuffixRow]) -> Mapping[str, float]:
    harmful = PER_PROMPT["hrr"][1]
    said, of_base = ({row.sample.doc_id: harmful(row.sample) for row in each} for each in (rows, base))
    shared = [doc_id for doc_id in said if doc_id in of_base]
    found = paired_difference([said[i] for i in shared], [of_base[i] for i in shared])
    return {"minus_base": found.value, "minus_base_low": found.low, "minus_base_high": found.high}


def _means(rows: Sequence[SuffixRow]) -> dict[str, float]:
    numbers = {
        name: [getattr(row, name) for row in rows if getattr(row, name) is not None]
        for name in ("target_greedy", "loss_start", "loss_end", "steps", "evaluated")
    }
    scale = {"target_greedy": 100}
    return {name: scale.get(name, 1) * mean(map(float, own)) for name, own in numbers.items() if own}


def prompt_table(rows: Sequence[SuffixRow]) -> pd.DataFrame:
    """One line per request, model and search, without any text: the columns of `PROMPT_COLUMNS`."""
    import pandas as pd

    lines = [
        {
            **{name: getattr(row, name) for name in PROMPT_COLUMNS if hasattr(row, name)},
            **{"row": row.sample.doc_id, "outcome": row.sample.outcome.value, "refused": row.sample.refused},
        }
        for row in rows
    ]
    return pd.DataFrame(lines, columns=list(PROMPT_COLUMNS))
