"""Quality against cost: what each variant of a run's restorations reached, over the row-passes that it took.

    python benchmarks/quality_passes.py runs/ablation docs/results

A row forward and backward is one row-pass, a row forward only a third. Means over the worlds of the run.
"""

import argparse
import json
from pathlib import Path

import pandas as pd
import safebasin

MEASURES = ["hrr", "refusal_rate", "over_refusal", "sandbox_task", "eval_loss"]


def passes(folder: Path) -> pd.DataFrame:
    """Model, method, seed, row-passes and the end of each restoration in a run folder."""
    builds = json.loads((folder / "plan.json").read_text())["builds"]
    rows = []
    for build in builds:
        about = folder / "checkpoints" / build["id"] / "provenance.json"
        details = json.loads(about.read_text())["details"] if about.is_file() else {}
        if details.get("row_passes"):
            told = {"row_passes": details["row_passes"], "ended": details["ended"]}
            rows.append({"model": build["model"], "method": build["label"], "seed": build["seed"]} | told)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Whole refusals and over-refusal over row-passes, a point per variant."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "quality"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 1, figsize=(9, 10), sharex=True, layout="constrained")
    for axis, measure in zip(axes, ("refusal_rate", "over_refusal"), strict=True):
        for method, row in table.iterrows():
            colour = "tab:red" if str(method).startswith("paper") else "tab:blue"
            axis.plot(row["row_passes"], row[measure], "o", color=colour)
            axis.annotate(str(method), (row["row_passes"], row[measure]), fontsize=7, rotation=20)
        axis.set_ylabel({"refusal_rate": "whole refusals, %", "over_refusal": "over-refusal, %"}[measure])
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("row-passes of the restoration, mean over worlds")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args()
    both = safebasin.load_run(given.folder).merge(passes(given.folder), on=["model", "method", "seed"])
    table = both.groupby("method", sort=False)[["row_passes", *MEASURES]].mean()
    ended = both.groupby("method", sort=False)["ended"].agg(lambda ends: ", ".join(sorted(ends)))
    table.assign(ended=ended).to_csv(given.output / "quality-passes.csv", float_format="%.6g")
    draw(table, given.output / "quality-passes.svg")
    print(table.assign(ended=ended).to_string())


if __name__ == "__main__":
    main()
