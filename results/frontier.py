"""The frontier: what each method buys, and breaks, as its bound on the retain loss is widened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import utility_columns
from .leaderboard import leaderboard
from .method_result import MethodResult
from .statistics import holm
from .text import markdown

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BUDGETS", "HIGHER_IS_BETTER", "at_equal_loss", "frontier", "write_frontier"]

BUDGETS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Rises of the evaluation loss over the fine-tuned model's, in nats per token, at which methods are compared."""
HIGHER_IS_BETTER = {"hrr": False, "refusal_rate": True, "over_refusal": False}
"""Of the measures that every frontier has; of utility tasks, more is better."""
TUNED = "lora"


def frontier(results: Sequence[MethodResult], points: Mapping[str, tuple[str, float]]) -> pd.DataFrame:
    """One row per model, method, epsilon and seed.

    Args:
        results: those of the run.
        points: label of a row -> (its method's label, epsilon); other rows keep their label, without an epsilon.

    Returns:
        model, method, epsilon, seed, hrr, refusal_rate (whole refusals), incoherent_rate, over_refusal, the utility
        tasks, eval_loss, minutes and model_digest. Rates in percent, loss in nats per token. Failed rows are left out.

    Raises:
        InputError: results under one model's name are of different models.
    """
    frame = leaderboard(results)
    frame = frame[frame["status"] == "ok"]
    labels = frame["method"].tolist()
    frame = frame.assign(
        epsilon=[points[label][1] if label in points else float("nan") for label in labels],
        method=[points[label][0] if label in points else label for label in labels],
    )
    utility = utility_columns(list(frame.columns))
    measures = ["hrr", "refusal_rate", "incoherent_rate", "over_refusal", *utility, "eval_loss", "minutes"]
    return frame[["model", "method", "epsilon", "seed", *measures, "model_digest"]].reset_index(drop=True)


def _measures(frame: pd.DataFrame) -> list[str]:
    """The columns that methods are compared in."""
    columns = list(frame.columns)
    utility = columns[columns.index("over_refusal") + 1 : columns.index("eval_loss")]
    return [name for name in (*HIGHER_IS_BETTER, *utility) if frame[name].notna().any()]


def at_equal_loss(
    frame: pd.DataFrame, reference: str, budgets: Sequence[float] = BUDGETS, over_worlds: bool = False
) -> pd.DataFrame:
    """Compares the methods of a frontier at no more than the same evaluation loss.

    A method's point at a budget is the one with the largest epsilon whose evaluation loss is at most that of the
    fine-tuned model of the same world and seed plus the budget; the fine-tuned model itself, where none is. It is what
    a user who tolerates that loss would choose, without a look at anything else.

    Args:
        frame: what `frontier` made, with rows `lora`; of one model, or of several that are worlds of one preset.
        reference: the method that others are compared with; it may have a single point, with a bound of its own.
        budgets: rises of the evaluation loss, in nats per token.
        over_worlds: whether the models are replicas, to be averaged over.

    Returns:
        One row per budget and method: worlds, seeds (the replicas: pairs of world and seed), the mean over them of each
        measure and the evaluation loss. In `<measure>_p` the p-value of a two-sided paired test against the reference
        (empty where all replicas agree): over several worlds `hierarchy.sign_flip` of the worlds' means, else a t-test
        over seeds; in `<measure>_p_holm` the same corrected over the budgets and methods of the measure. Over several
        worlds also `<measure>_low` and `_high`, the hierarchical bootstrap of worlds and seeds.

    Raises:
        InputError: several models that are no replicas, several under one name, the same twice, or a method without
            points in some world and seed.
    """
    import pandas as pd

    from .frontier_worlds import check_replicas, chosen_at, intervals, paired_p

    check_replicas(frame, TUNED, over_worlds)
    chosen = pd.concat([chosen_at(frame, budget, TUNED, reference) for budget in budgets], ignore_index=True)
    measures, rows = [*_measures(frame), "eval_loss"], []
    for (budget, method), group in chosen.groupby(["budget", "method"], sort=False):
        row: dict[str, Any] = {"budget": budget, "method": method}
        row |= {"worlds": group["model"].nunique(), "seeds": len(group)}
        row |= {name: group[name].mean() for name in measures}
        others = chosen[(chosen["budget"] == budget) & (chosen["method"] == reference)]
        row |= {f"{name}_p": paired_p(group, others, name) for name in measures if method != reference}
        rows.append(row | (intervals(group, measures) if over_worlds else {}))
    table = pd.DataFrame(rows)
    for name in measures:
        if f"{name}_p" in table:
            table[f"{name}_p_holm"] = holm([None if p != p else p for p in table[f"{name}_p"].astype(float)])
    return table


def write_frontier(
    frame: pd.DataFrame, folder: Path, reference: str | None = None, over_worlds: bool = False
) -> list[Path]:
    """Writes frontier.csv, frontier.svg and, where there is something to compare, frontier-at-equal-loss.csv and .md.

    Args:
        frame: what `frontier` made.
        folder: where to.
        reference: the method to compare with; the first on the frontier by default, or where it has no rows.
        over_worlds: whether several models are replicas of one preset; other models are not averaged, and so neither
            compared nor drawn.

    Raises:
        InputError: a file cannot be written.
    """
    from .export import csv_text, replace_text
    from .frontier_chart import draw
    from .frontier_worlds import lacking

    swept = frame.dropna(subset=["epsilon"])["method"].tolist()
    table = folder / "frontier.csv"
    replace_text(table, csv_text(frame))
    written = [table]
    if swept and (over_worlds or frame["model"].nunique() == 1):
        missing = lacking(frame, TUNED)
        complete = frame[~frame["method"].isin(list(missing))]
        swept = complete.dropna(subset=["epsilon"])["method"].tolist()
        if swept and TUNED not in missing:
            equal = folder / "frontier-at-equal-loss.csv"
            known = reference is not None and reference in set(complete["method"])
            other = str(reference if known else swept[0])
            compared = at_equal_loss(complete, other, over_worlds=over_worlds)
            replace_text(equal, csv_text(compared))
            replace_text(equal.with_suffix(".md"), _markdown(compared, _measures(complete), list(missing)))
            written += [equal, equal.with_suffix(".md")]
        replace_text(folder / "frontier.svg", draw(frame, _measures(frame)))
        written.append(folder / "frontier.svg")
    return written


def _markdown(table: pd.DataFrame, measures: Sequence[str], missing: Sequence[str]) -> str:
    """The comparison as a table: means over replicas, with a star where p < 0.05 against the reference."""
    worlds = int(table["worlds"].max())
    heads = ["loss may rise by", "method", "eval loss", *map(markdown, measures)]
    lines = [heads, ["--:", ":--", *["--:"] * (len(heads) - 2)]]
    for row in table.to_dict("records"):
        cells = [_starred(row, name) for name in measures]
        loss = f"{row['eval_loss']:.4f}{_star(row, 'eval_loss')}"
        lines.append([f"{row['budget']:g}", markdown(str(row["method"])), loss, *cells])
    test = f"sign-flip test over {worlds} worlds" if worlds > 1 else "paired t-test over seeds"
    note = f"A star: p < 0.05, {test} against the method whose rows have none; not corrected. The CSV has Holm's."
    if missing:
        note += (
            f" Not compared, as they have no finished row in some world or seed: {', '.join(map(markdown, missing))}."
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _starred(row: Mapping[Any, Any], name: str) -> str:
    return f"{row[name]:.1f}{_star(row, name)}"


def _star(row: Mapping[Any, Any], name: str) -> str:
    p = row.get(f"{name}_p")
    return "*" if p is not None and p < 0.05 else ""
