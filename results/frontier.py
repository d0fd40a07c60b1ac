"""The frontier: what each method buys, and breaks, as its bound on the retain loss is widened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import utility_columns
from .leaderboard import leaderboard
from .method_result import MethodResult

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
        tasks, eval_loss and minutes. Rates in percent, loss in nats per token. Failed rows are left out.
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
    return frame[["model", "method", "epsilon", "seed", *measures]].reset_index(drop=True)


def _measures(frame: pd.DataFrame) -> list[str]:
    """The columns that methods are compared in."""
    columns = list(frame.columns)
    utility = columns[columns.index("over_refusal") + 1 : columns.index("eval_loss")]
    return [name for name in (*HIGHER_IS_BETTER, *utility) if frame[name].notna().any()]


def at_equal_loss(frame: pd.DataFrame, reference: str, budgets: Sequence[float] = BUDGETS) -> pd.DataFrame:
    """Compares the methods of a frontier at no more than the same evaluation loss.

    A method's point at a budget is the one with the largest epsilon whose evaluation loss is at most that of the
    fine-tuned model of the same seed plus the budget; the fine-tuned model itself, where none is. It is what a user
    who tolerates that loss would choose, without a look at anything else.

    Args:
        frame: what `frontier` made, of one model, with rows `lora`.
        reference: the method that others are compared with.
        budgets: rises of the evaluation loss, in nats per token.

    Returns:
        One row per budget and method: the mean over seeds of each measure, and in `<measure>_p` the p-value of a
        two-sided paired t-test over seeds against the reference (empty where all seeds agree).
    """
    import pandas as pd

    chosen = pd.concat([_at(frame, budget) for budget in budgets], ignore_index=True)
    measures, rows = _measures(frame), []
    for (budget, method), group in chosen.groupby(["budget", "method"], sort=False):
        row: dict[str, Any] = {"budget": budget, "method": method, "seeds": len(group)}
        row |= {name: group[name].mean() for name in (*measures, "eval_loss")}
        others = chosen[(chosen["budget"] == budget) & (chosen["method"] == reference)]
        row |= {f"{name}_p": _paired_p(group, others, name) for name in measures if method != reference}
        rows.append(row)
    return pd.DataFrame(rows)


def _at(frame: pd.DataFrame, budget: float) -> pd.DataFrame:
    import pandas as pd

    tuned = {row["seed"]: row for row in frame[frame["method"] == TUNED].to_dict("records")}
    chosen: list[dict[Any, Any]] = []
    for (method, seed), group in frame.dropna(subset=["epsilon"]).groupby(["method", "seed"], sort=False):
        points = group.sort_values("epsilon").to_dict("records")
        within = [row for row in points if row["eval_loss"] <= tuned[seed]["eval_loss"] + budget]
        best = within[-1] if within else tuned[seed]
        chosen.append({**best, "method": method, "seed": seed, "budget": budget})
    return pd.DataFrame(chosen)


def _paired_p(group: pd.DataFrame, others: pd.DataFrame, name: str) -> float | None:
    from scipy.stats import ttest_rel

    both = group.set_index("seed")[name].to_frame("a").join(others.set_index("seed")[name].to_frame("b"), how="inner")
    difference = both["a"] - both["b"]
    if len(both) < 2 or not difference.std() > 0:
        return None
    return float(ttest_rel(both["a"], both["b"]).pvalue)


def write_frontier(frame: pd.DataFrame, folder: Path, reference: str | None = None) -> list[Path]:
    """Writes frontier.csv, frontier.svg and, where there is something to compare, frontier-at-equal-loss.csv and .md.

    Args:
        frame: what `frontier` made.
        folder: where to.
        reference: the method to compare with; the first on the frontier by default.

    Raises:
        InputError: a file cannot be written.
    """
    from .export import replace_text
    from .frontier_chart import draw

    swept = frame.dropna(subset=["epsilon"])["method"].tolist()
    table = folder / "frontier.csv"
    replace_text(table, frame.to_csv(index=False, float_format="%.6g"))
    written = [table]
    if swept and frame["model"].nunique() == 1:
        if (frame["method"] == TUNED).any():
            equal = folder / "frontier-at-equal-loss.csv"
            compared = at_equal_loss(frame, reference or swept[0])
            replace_text(equal, compared.to_csv(index=False, float_format="%.6g"))
            replace_text(equal.with_suffix(".md"), _markdown(compared, _measures(frame)))
            written += [equal, equal.with_suffix(".md")]
        replace_text(folder / "frontier.svg", draw(frame, _measures(frame)))
        written.append(folder / "frontier.svg")
    return written


def _markdown(table: pd.DataFrame, measures: Sequence[str]) -> str:
    """The comparison as a table: means over seeds, with a star where p < 0.05 against the reference."""
    heads = ["loss may rise by", "method", "eval loss", *measures]
    lines = [heads, ["--:", ":--", *["--:"] * (len(heads) - 2)]]
    for row in table.to_dict("records"):
        cells = [_starred(row, name) for name in measures]
        lines.append([f"{row['budget']:g}", str(row["method"]), f"{row['eval_loss']:.4f}", *cells])
    note = "A star: p < 0.05, paired t-test over seeds against the method whose rows have none; not corrected."
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}\n"


def _starred(row: Mapping[Any, Any], name: str) -> str:
    p = row.get(f"{name}_p")
    return f"{row[name]:.1f}{'*' if p is not None and p < 0.05 else ''}"
