"""Several seeds of a method as one row: means, and tests over all seeds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .leaderboard import harmful_by_prompt, leaderboard, usable
from .method_result import MethodResult
from .statistics import holm, mcnemar_exact, wilson
from .text import markdown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOTES", "aggregate", "write_aggregate"]

NOTES = (
    "Means over seeds; `HRR by seed` has the lowest and the highest.",
    "Interval: Wilson 95 % at the mean rate with n = the number of prompts. The seeds answer the same prompts, so they "
    "are not counted as further observations; what varies from seed to seed shows in the range, not in the interval.",
    "p: two-sided exact McNemar test of harm against `lora` over all pairs of prompt and seed, each with the `lora` of "
    "its own seed; Holm over the rows of a model. Pairs that share a prompt are not independent: p is on the low side.",
)
_MEANS = (
    *("hrr", "refusal_rate", "incoherent_rate", "unparsed_rate", "prefill_asr", "visage", "over_refusal", "eval_loss"),
)
_GRADES = ("grade", "grade_max")
"""Only where a judge graded."""
_COSTS = ("minutes", "peak_gb")


def aggregate(results: Sequence[MethodResult]) -> "pd.DataFrame":
    """One row per model and method; a method with a failed seed is left out of it with that seed, and `seeds` says so.

    Rates in percent, losses in nats per token, as in `leaderboard`. See `NOTES` for intervals and tests.

    Raises:
        InputError: results under one model's name are of different models, so their seeds are not replicas.
    """
    import pandas as pd

    frame = leaderboard(results)
    good = frame[frame["status"] == "ok"]
    utility = [name for name in frame.columns if name in {key for r in results for key in r.metrics} - {"eval_loss"}]
    rows = []
    for (model, method), group in good.groupby(["model", "method"], sort=False):
        graded = [name for name in _GRADES if name in frame.columns]
        means = {name: group[name].mean() for name in (*_MEANS, *graded, *utility, *_COSTS)}
        low, high = wilson(means["hrr"] / 100 * group["n"].iloc[0], int(group["n"].iloc[0]))
        rows.append(
            {
                "model": model,
                "method": method,
                "stage": group["stage"].iloc[0],
                "seeds": len(group),
                "n": group["n"].iloc[0],
                **means,
                "hrr_low": 100 * low,
                "hrr_high": 100 * high,
                "hrr_min": group["hrr"].min(),
                "hrr_max": group["hrr"].max(),
                "p_vs_lora": _pooled_p(results, str(model), str(method)),
            }
        )
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("model")["p_vs_lora"].transform(lambda p: holm([_none(value) for value in p]))
    return table


def _none(value: Any) -> float | None:
    return None if value is None or value != value else float(value)


def _pooled_p(results: Sequence[MethodResult], model: str, method: str) -> float | None:
    """Exact McNemar over the pairs of all seeds; None for `lora`, the base, and where there is nothing to pair."""
    own: list[bool | None] = []
    other: list[bool | None] = []
    loras = {r.seed: r for r in results if r.model == model and r.method == "lora" and usable(r)}
    for result in results:
        same = result.model == model and result.method == method and result.stage != "base" and method != "lora"
        if same and usable(result) and result.seed in loras:
            mine, theirs = harmful_by_prompt(result), harmful_by_prompt(loras[result.seed])
            shared = sorted(mine.keys() & theirs.keys())
            own += [mine[doc_id] for doc_id in shared]
            other += [theirs[doc_id] for doc_id in shared]
    return mcnemar_exact(own, other) if own else None


def write_aggregate(table: "pd.DataFrame", path: Path) -> None:
    """Writes the table as CSV at `path`, and as Markdown beside it.

    Raises:
        InputError: a file cannot be written.
    """
    from .export import csv_text, replace_text

    replace_text(path, csv_text(table))
    replace_text(path.with_suffix(".md"), f"{_markdown(table)}\n\n" + "\n".join(f"- {note}" for note in NOTES) + "\n")


def _number(decimals: int) -> Callable[[Any], str]:
    return lambda value: "-" if _none(value) is None else f"{value:.{decimals}f}"


def _p_value(value: Any) -> str:
    p = _none(value)
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _markdown(table: "pd.DataFrame") -> str:
    known = {
        "model",
        "method",
        "stage",
        "seeds",
        "n",
        "p_vs_lora",
        "p_holm",
        "hrr_low",
        "hrr_high",
        "hrr_min",
        "hrr_max",
    }
    utility = [name for name in table.columns if name not in known | {*_MEANS, *_GRADES, *_COSTS}]
    graded = [name for name in _GRADES if name in table.columns]
    rate, loss = _number(1), _number(3)
    identity = ["model"] if table["model"].nunique() > 1 else []
    identity += ["method", "stage", "seeds"]
    shown = ("refusal_rate", "incoherent_rate", "prefill_asr", "visage", "over_refusal")
    heads = [*identity, "HRR [95 %]", "HRR by seed", "refused", "incoherent", "prefill ASR"]
    heads += [
        "VISAGE",
        "over-refusal",
        *(name.replace("_", " ") for name in graded),
        "eval loss",
        *map(markdown, utility),
        "min",
        "peak GB",
        "p",
        "p (Holm)",
    ]
    lines = [heads, ["---"] * len(heads)]
    for row in table.to_dict("records"):
        lines.append(
            [
                *(markdown(str(row[name])) for name in identity),
                f"{rate(row['hrr'])} [{rate(row['hrr_low'])}, {rate(row['hrr_high'])}]",
                f"{rate(row['hrr_min'])} – {rate(row['hrr_max'])}",
                *(rate(row[name]) for name in (*shown, *graded)),
                loss(row["eval_loss"]),
                *(rate(row[name]) for name in utility),
                *(rate(row[name]) for name in _COSTS),
                *(_p_value(row[name]) for name in ("p_vs_lora", "p_holm")),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
