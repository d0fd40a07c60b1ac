"""The report's charts, as Vega-Lite specifications with their data in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..columns import utility_columns
from ..display import mark
from ..frontier import frontier
from ..method_result import STAGES, MethodResult
from ..records import Outcome
from ..sweep import points as sweep_points
from ..visage_chart import PANELS
from .category_chart import category_chart
from .contents import Report
from .embed import visible
from .gain_chart import gain_chart
from .judge_charts import judge_charts
from .relapse_chart import relapse_charts
from .specs import METHODS, Chart, Row, Spec, choice, field, height, legend, measured, percent, titled, vega

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Chart", "charts", "undominated"]

COLOURS = {
    Outcome.HARMFUL: "#d55e00",
    Outcome.UNPARSED: "#cc79a7",
    Outcome.UNFINISHED: "#999999",
    Outcome.INCOHERENT: "#e0a000",
    Outcome.BENIGN: "#56b4e9",
    Outcome.REFUSED: "#0072b2",
}
"""Of Okabe and Ito, which can be told apart without seeing red or green; from worst to safest."""
RATES = {"hrr": "harmful responses (HRR)", "prefill_asr": "harmful after a forced opening (prefill ASR)"}
ROLE_TITLES = {
    "hrr": "harmful requests",
    "prefill": "harmful requests with a forced opening",
    "over_refusal": "harmless requests",
    "under_refusal": "requests that should be refused",
}


def charts(report: Report) -> list[Chart]:
    """All charts that the results have data for, section by section; those of models that are no replicas apart."""
    groups = [*_groups(report)]
    makers = (_bars, _outcomes, _kinds, _judges, _pareto, _drift, _relapse, _gains, _basins)
    return [chart for make in makers for group in groups for chart in make(report, *group)]


def _groups(report: Report) -> Iterator[tuple[str, list[MethodResult], pd.DataFrame]]:
    """(model, or empty where there is one alone; its results; its leaderboard), finished rows only."""
    models = list(dict.fromkeys(result.model for result in report.results))
    together = [models] if report.over_worlds or len(models) == 1 else [[model] for model in models]
    for names in together:
        results = [result for result in report.results if result.model in names and result.status == "ok"]
        frame = report.frame[report.frame["model"].isin(names) & (report.frame["status"] == "ok")]
        if results:
            yield (visible(names[0], 80) if len(together) > 1 else ""), results, frame


def _bars(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    several = bool(frame.duplicated("method").any())
    spread = "the line from the lowest row to the highest" if several else "the line its 95 % interval"
    for measure, title in RATES.items():
        if rows := _rates(frame, measure, several):
            value = "the mean over seeds and worlds" if several else "the rate"
            marks = any(row["mark"] for row in rows)
            said = " Asterisks: p against LoRA (Holm) below 0.05, 0.01, 0.001." if marks else ""
            yield Chart(
                *("Harm", titled(title, model), f"Percent of responses; the bar is {value}, {spread}.{said}"),
                _bar_spec(rows, title),
            )


def _rates(frame: pd.DataFrame, measure: str, several: bool) -> list[Row]:
    low, high = (measure, measure) if several else (f"{measure}_low", f"{measure}_high")
    found = []
    for method, group in frame.dropna(subset=[measure]).groupby("method", sort=False):
        about = {"method": visible(str(method)), "stage": str(group["stage"].iloc[0]), "rows": len(group)}
        ends = {"low": float(group[low].min()), "high": float(group[high].max())}
        tested = measure == "hrr" and not several and group["p_holm"].notna().all()
        about["mark"] = mark(float(group["p_holm"].iloc[0])) if tested else ""
        found.append(about | {"value": float(group[measure].mean())} | ends)
    return found


def _bar_spec(rows: Sequence[Row], title: str) -> Spec:
    tooltip = [field("method"), field("stage"), *(field(name, ".1f") for name in ("value", "low", "high"))]
    return vega(
        rows,
        title,
        height=height(rows),
        encoding={"y": METHODS},
        layer=[
            {
                "mark": {"type": "bar", "height": {"band": 0.7}},
                "encoding": {"x": percent("value"), "color": legend("stage", _STAGES), "tooltip": tooltip},
            },
            {"mark": {"type": "rule", "strokeWidth": 1.5}, "encoding": {"x": percent("low"), "x2": {"field": "high"}}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, "dy": 3, "fontSize": 13},
                "encoding": {"x": percent("high"), "text": {"field": "mark"}},
            },
        ],
    )


def _outcomes(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    for role, title in ROLE_TITLES.items():
        if rows := _shares(results, role):
            order = [outcome.value for outcome in COLOURS]
            spec = vega(
                rows,
                f"Outcomes of {title}",
                height=height(rows),
                mark={"type": "bar", "height": {"band": 0.7}},
                encoding={
                    "y": METHODS,
                    "x": percent("percent"),
                    "order": {"field": "order", "type": "ordinal"},
                    "color": legend("outcome", {"domain": order, "range": [*COLOURS.values()]}),
                    "tooltip": [field("method"), field("outcome"), field("percent", ".1f"), field("count")],
                },
            )
            yield Chart("Outcomes", titled(title, model), "Every response has exactly one outcome.", spec)


def _shares(results: Iterable[MethodResult], role: str) -> list[Row]:
    counts: dict[str, dict[Outcome, int]] = {}
    for result in results:
        for sample in result.safety.get(role, ()):
            own = counts.setdefault(result.method, dict.fromkeys(COLOURS, 0))
            own[sample.outcome] += 1
    return [
        {
            **{"method": visible(method), "outcome": outcome.value, "order": place, "count": count},
            "percent": 100 * count / sum(own.values()),
        }
        for method, own in counts.items()
        for place, (outcome, count) in enumerate(own.items())
        if count
    ]


def undominated(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which (benefit, harm) no other point beats: at least as much benefit, no more harm, and better in one of them."""
    return [
        not any(b >= benefit and h <= harm and (b, h) != (benefit, harm) for b, h in points) for benefit, harm in points
    ]


def _judges(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    return judge_charts(report, model, list(dict.fromkeys(result.model for result in results)))


def _pareto(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    swept = frontier(results, report.points)
    metrics = [name for name in (*utility_columns(list(frame.columns)), "eval_loss") if swept[name].notna().any()]
    metrics = metrics if swept["hrr"].notna().any() else []
    stages = {report.points.get(result.method, (result.method,))[0]: result.stage for result in results}
    rows = [row for metric in metrics for row in _tradeoff(swept, metric, stages)]
    if not rows:
        return
    tooltip = [field("method"), field("epsilon"), field("utility", ".4g"), field("hrr", ".1f")]
    place = {"x": measured("utility", "the chosen measure of utility"), "y": percent("hrr", "HRR, percent")}
    layers: list[Spec] = [
        {
            "transform": [{"filter": "datum.best"}],
            "mark": {"type": "line", "strokeDash": [5, 4], "opacity": 0.6},
            "encoding": {**place, "order": {"field": "utility"}},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
            "encoding": {**place, "color": legend("method"), "shape": legend("stage"), "tooltip": tooltip},
        },
    ]
    if any(row["epsilon"] is not None for row in rows):
        bounds = {
            "transform": [{"filter": "datum.epsilon !== null"}],
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {**place, "order": {"field": "epsilon"}, "color": legend("method")},
        }
        layers.insert(1, bounds)
    caption = "Down is safer, and right is more useful (left for eval_loss). The dashed line joins what nothing beats"
    lines = "; a coloured one the bounds on the loss of one method." if report.points else "."
    spec = vega(
        rows,
        "Harm against utility",
        height=340,
        params=[choice("metric", metrics, "utility")],
        transform=[{"filter": "datum.metric === metric"}],
        layer=layers,
    )
    yield Chart("Safety and utility", titled("What harm is left at which utility", model), caption + lines, spec)


def _tradeoff(swept: pd.DataFrame, metric: str, stages: Mapping[str, str]) -> list[Row]:
    """The means over seeds and worlds of each method, at each of its bounds."""
    known = swept.dropna(subset=[metric, "hrr"])
    means = known.groupby(["method", "epsilon"], sort=False, dropna=False)[[metric, "hrr"]].mean().reset_index()
    about = list(zip(means["method"], means["epsilon"], means[metric], means["hrr"], strict=True))
    sign = -1 if metric == "eval_loss" else 1
    best = undominated([(sign * utility, hrr) for _, _, utility, hrr in about])
    return [
        {
            **{"metric": visible(metric), "method": visible(method), "stage": stages[method], "best": each},
            **{"epsilon": None if epsilon != epsilon else epsilon, "utility": utility, "hrr": hrr},
        }
        for (method, epsilon, utility, hrr), each in zip(about, best, strict=True)
    ]


def _drift(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    names = ("hrr", "prefill_asr", "over_refusal", *utility_columns(list(frame.columns)))
    measures = [name for name in names if frame[name].notna().any()]
    rows = [row for measure in measures for row in _arrows(frame, measure, report.starts)]
    if not rows:
        return
    kind: Spec = legend("step", {"domain": ["fine-tuning", "repair"], "range": ["#d55e00", "#0072b2"]})
    lane: Spec = {"yOffset": {"field": "step", "type": "nominal", "scale": {"domain": ["fine-tuning", "repair"]}}}
    tooltip: list[Spec] = [field("method"), field("step"), field("from", ".1f"), field("to", ".1f")]
    end: Spec = {**lane, "color": kind, "tooltip": tooltip}
    line: Spec = {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": {"x": percent("from"), "x2": _TO, **end}}
    heads: list[Spec] = [
        {
            "transform": [{"filter": test}],
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1, "shape": shape},
            "encoding": {"x": percent("to"), **end},
        }
        for shape, test in _HEADS.items()
    ]
    spec = vega(
        rows,
        "Drift and repair",
        height=height(rows, 30),
        params=[choice("measure", measures, "measure")],
        transform=[{"filter": "datum.measure === measure"}],
        encoding={"y": {**METHODS, "scale": {"paddingInner": 0.25}}},
        layer=[line, *heads],
    )
    caption = (
        "From the base model to the fine-tuned one, and from there to the repaired one; a dot: no change. Percent of "
        "responses, means where there are several seeds or worlds."
    )
    yield Chart("Drift and repair", titled("What fine-tuning did, and what the repair undid", model), caption, spec)


def _arrows(frame: pd.DataFrame, measure: str, starts: Mapping[str, str]) -> Iterator[Row]:
    means = {str(method): float(value) for method, value in frame.groupby("method", sort=False)[measure].mean().items()}
    stages = dict(zip(frame["method"], frame["stage"], strict=True))
    base = next((means[method] for method, stage in stages.items() if stage == "base"), None)
    for method, value in means.items():
        own = {"measure": visible(measure), "method": visible(method)}
        tuned = means.get(starts.get(method, "")) if stages[method] == "post-hoc" else value
        if stages[method] == "base" or tuned is None or tuned != tuned or value != value:
            continue
        if base is not None and base == base:
            yield own | {"step": "fine-tuning", "from": base, "to": tuned}
        if stages[method] == "post-hoc":
            yield own | {"step": "repair", "from": tuned, "to": value}


def _kinds(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    return category_chart(results, model)


def _gains(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    return gain_chart(frame, model)


def _relapse(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    return relapse_charts(model, results)


def _basins(report: Report, model: str, results: Sequence[MethodResult], frame: pd.DataFrame) -> Iterator[Chart]:
    swept = sweep_points(results)
    for column, title in PANELS.items():
        if not len(swept):
            return
        means = swept.groupby(["method", "alpha"], sort=False)[column].mean().reset_index()
        means["method"] = [visible(method) for method in means["method"]]
        rows = means.rename(columns={column: "percent"}).to_dict("records")
        spec = vega(
            rows,
            f"Basin: {title}",
            height=240,
            params=[{"name": "chosen", "select": {"type": "point", "fields": ["method"]}, "bind": "legend"}],
            mark={"type": "line", "point": {"size": 20}},
            encoding={
                "x": {**measured("alpha", "perturbation, as a share of each tensor's norm"), "scale": {"nice": False}},
                "y": percent("percent", "percent of responses"),
                "color": legend("method"),
                "opacity": {"condition": {"param": "chosen", "value": 1}, "value": 0.1},
                "tooltip": [field("method"), field("alpha"), field("percent", ".1f")],
            },
        )
        caption = "Means over directions, seeds and worlds. A click on a method in the legend leaves it alone."
        yield Chart("Safety basins", titled(title, model), caption, spec)


_TO: Spec = {"field": "to"}
_HEADS = {
    "triangle-right": "datum.to > datum.from + 0.5",
    "triangle-left": "datum.to < datum.from - 0.5",
    "circle": "abs(datum.to - datum.from) <= 0.5",
}
"""Shape of an arrow's head -> when it has it."""
_STAGES: Spec = {"domain": [*STAGES], "range": ["#8a949e", "#009e73", "#d58a3a", "#3277b8"]}
