"""The leaderboard in LaTeX, in the layout of the paper's table 2: models, methods, loss, HRR, utility."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .columns import utility_columns
from .text import latex

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["latex_table"]

RANKED = 3
"""Seeds that it takes to mark a best method (as in `display.remarks`)."""
BESIDE = {"refusal_rate": "Refused", "incoherent_rate": "Incoherent", "over_refusal": "Over-refusal"}
"""What no harmful response rate is shown without; the paper does not have these columns."""
_Mark = Callable[[str], str]


@dataclass(frozen=True)
class _Measure:
    """One column of numbers."""

    source: str
    header: str
    better: int = 0
    """-1 where less is better, 1 where more is, 0 where nothing is marked."""
    decimals: int = 1

    def cell(self, row: pd.Series) -> str:
        """The rounded mean; a dash where there is none."""
        value = row.get(self.source)
        return "--" if value is None or value != value else f"{value:.{self.decimals}f}"


def latex_table(frame: pd.DataFrame) -> str:
    r"""A `table` environment for `\usepackage{booktabs,multirow}`.

    Seeds of a method are averaged, failed rows left out and named in the caption. With 3 seeds or more of every method
    the best of a model's methods is bold and the second underlined, in each column as it is rounded; the base is not
    among them. With fewer nothing is marked, as nothing is ranked. HRR has its Wilson 95 % interval where there is one
    seed.

    Args:
        frame: the leaderboard.
    """
    measures = _measures(frame)
    groups = list(_groups(frame))
    ranked = all((rows[rows["stage"] != "base"]["seeds"] >= RANKED).all() for _, rows in groups)
    lines = ["% \\usepackage{booktabs,multirow}", "\\begin{table}", "\\centering"]
    lines += [f"\\caption{{{_caption(frame, ranked)}}}"]
    lines += [f"\\begin{{tabular}}{{ll{'r' * len(measures)}}}", "\\toprule", *_head(measures)]
    for model, rows in groups:
        lines += ["\\midrule", *_body(model, rows, measures, ranked)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _measures(frame: pd.DataFrame) -> list[_Measure]:
    utility = [_Measure(name, latex(name), 1) for name in utility_columns(list(frame.columns))]
    beside = [_Measure(name, header) for name, header in BESIDE.items()]
    first = [_Measure("eval_loss", "Eval $\\downarrow$", -1, 2), _Measure("hrr", "HRR $\\downarrow$", -1)]
    return [each for each in (*first, *utility, *beside) if frame[each.source].notna().any() or each.source == "hrr"]


def _groups(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each model with one row per method: means over its finished seeds, and their number."""
    good = frame[frame["status"] == "ok"]
    for model, rows in good.groupby("model", sort=False):
        grouped = rows.groupby("method", sort=False)
        means = grouped.mean(numeric_only=True).assign(stage=grouped["stage"].first(), seeds=grouped["seed"].nunique())
        yield str(model), means.reset_index()


def _head(measures: Sequence[_Measure]) -> Iterator[str]:
    first = [each for each in measures if each.better < 0]
    utility = [each for each in measures if each.better > 0]
    beside = [each for each in measures if not each.better]
    above = ["Models", "Methods", *(each.header for each in first)]
    rules, place = [], 2 + len(first)
    for name, group in (("Utility $\\uparrow$", utility), ("Responses", beside)):
        if group:
            above.append(f"\\multicolumn{{{len(group)}}}{{c}}{{{name}}}")
            rules.append(f"\\cmidrule(lr){{{place + 1}-{place + len(group)}}}")
            place += len(group)
    yield " & ".join(above) + " \\\\"
    if rules:
        yield " ".join(rules)
        yield " & ".join(["", "", *("" for _ in first), *(each.header for each in (*utility, *beside))]) + " \\\\"


def _body(model: str, rows: pd.DataFrame, measures: Sequence[_Measure], ranked: bool) -> Iterator[str]:
    marks = {each.source: _marks(each, rows) if ranked else {} for each in measures}
    for place, (_, row) in enumerate(rows.iterrows()):
        cells = [f"\\multirow{{{len(rows)}}}{{*}}{{{latex(model)}}}" if place == 0 else "", latex(str(row["method"]))]
        for each in measures:
            shown = each.cell(row)
            mark = marks[each.source].get(shown) if row["stage"] != "base" else None
            cells.append((mark(shown) if mark else shown) + _interval(each, row))
        yield " & ".join(cells) + " \\\\"


def _interval(measure: _Measure, row: pd.Series) -> str:
    """Of HRR of one seed: an interval of a mean over seeds is another thing."""
    ends = [row.get("hrr_low"), row.get("hrr_high")]
    if measure.source != "hrr" or row["seeds"] > 1 or any(end is None or end != end for end in ends):
        return ""
    return f" {{\\scriptsize [{ends[0]:.1f}, {ends[1]:.1f}]}}"


def _marks(measure: _Measure, rows: pd.DataFrame) -> dict[str, _Mark]:
    """Rounded value -> how it is marked: values that look alike are marked alike."""
    shown = {measure.cell(row) for _, row in rows.iterrows() if row["stage"] != "base"} - {"--"}
    order = sorted(shown, key=float, reverse=measure.better > 0)
    if not measure.better or len(order) < 2:
        return {}
    return {order[0]: lambda text: f"\\textbf{{{text}}}", order[1]: lambda text: f"\\underline{{{text}}}"}


def _caption(frame: pd.DataFrame, ranked: bool) -> str:
    seeds = int(frame["seed"].nunique())
    words = [
        "HRR: harmful response rate in percent"
        + (f", mean over {seeds} seeds" if seeds > 1 else ", with the Wilson 95\\,\\% interval")
        + ". Eval: loss on held-out task rows, nats per token. Utility in percent.",
        "Refused, Incoherent: percent of the same responses; Over-refusal: harmless requests refused, percent.",
        "Bold: the best method, underlined: the second, per model, base aside."
        if ranked
        else f"Nothing is marked as best: that takes {RANKED} seeds.",
    ]
    numbers = sorted({int(n) for n in frame["n"].dropna()})
    words += [f"$n = {'/'.join(map(str, numbers))}$ prompts."] if numbers else []
    lost = frame[frame["status"] != "ok"]
    failed = [f"{row['model']} / {row['method']} / seed {row['seed']}" for _, row in lost.iterrows()]
    words += [f"Failed: {latex('; '.join(failed))}."] if failed else []
    return " ".join(words)
