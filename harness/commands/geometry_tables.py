"""Tables that the geometry commands print."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("correlations_table", "driving_table", "paths_table", "paying_table", "predicted_table", "preserved_table"),
    "structures_table",
]

MAIN = ("prompt", "affirmative", "answer", "refusal")
"""Targets that are printed."""


def driving_table(frame: "pd.DataFrame") -> Table:
    """The first examples, their prompts aside: some may be harmful."""
    table = Table("part of", "row", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("share %", "turn °", "loss", "tokens"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = (f"{100 * row['share']:.2f}", _r(row["turn"]), f"{row['loss']:.3f}", str(row["tokens"]))
        table.add_row(row["term"], f"{row['set']} {row['row']}", *numbers)
    return table


def paying_table(frame: "pd.DataFrame") -> Table:
    """The dearest rows."""
    table = Table("row", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("cost", "first order", "before", "after", "tokens"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = [f"{row[name]:.4f}" for name in ("cost", "first_order", "before", "after")]
        table.add_row(f"retain_check {row['row']}", *numbers, str(row["tokens"]))
    return table


def structures_table(frame: "pd.DataFrame") -> Table:
    """Structural differences with their noise floors."""
    table = Table("losses on", "compared", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("draw", "signed %", "absolute %", "rough %", "range, nats"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        numbers = ["-" if row[name] != row[name] else f"{row[name]:.2f}" for name in ("signed", "absolute", "rough")]
        table.add_row(escape(row["set"]), row["compared"], str(row["draw"] or "both"), *numbers, f"{row['spread']:.3g}")
    return table


def correlations_table(frame: "pd.DataFrame") -> Table:
    """Of each set and target: r with its interval, and controls; a restoration's iterations are on the page alone."""
    table = Table("set", "target", "model", box=SIMPLE_HEAD, pad_edge=False)
    heads = ("n", "r [95 %]", "Spearman", "given length", "same length", "shuffled")
    for head in heads:
        table.add_column(head, justify="right")
    shown = frame[frame["target"].isin(MAIN) & ~frame["model"].str.startswith("iteration ")]
    for row in shown.to_dict("records"):
        interval = f"{_r(row['pearson'])} [{_r(row['pearson_low'])}, {_r(row['pearson_high'])}]"
        others = [_r(row[name]) for name in ("spearman", "partial", "matched", "shuffled")]
        table.add_row(*(escape(row[name]) for name in ("set", "target", "model")), str(row["n"]), interval, *others)
    return table


def _r(value: float) -> str:
    return "-" if value != value else f"{value:.3f}"


def paths_table(paths: "pd.DataFrame", planes: "pd.DataFrame") -> Table:
    """Of each path: losses at the tuned model and where it ended, and what the plane explains."""
    table = Table("settings", "step size", "path", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("steps", "ended", "on harmful prompts", "on the task", "explained %"):
        table.add_column(head, justify="right")
    for plane in planes.to_dict("records"):
        own = paths[(paths["preset"] == plane["preset"]) & (paths["step_size"] == plane["step_size"])]
        for name, path in own.groupby("path", sort=False):
            first, last = path.iloc[0], path.iloc[-1]
            losses = [f"{first[each]:.4f} → {last[each]:.4f}" for each in ("harmful", "retain")]
            explained = f"{100 * (plane['explained_1'] + plane['explained_2']):.1f}"
            about = (str(plane["preset"]), f"{plane['step_size']:g}", str(name))
            table.add_row(*about, str(last["step"]), str(plane[f"{name} ended"]), *losses, explained)
    return table


def preserved_table(frame: "pd.DataFrame") -> Table:
    """Harmful losses against those of other sets."""
    table = Table("on", "against", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("models", "r harmful", "r other", "difference of z [95 %]", "p (Holm)"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        difference = f"{_r(row['difference'])} [{_r(row['low'])}, {_r(row['high'])}]"
        table.add_row(
            row["target"], escape(row["set"]), str(row["models"]), _r(row["harmful"]), _r(row["other"]), difference,
            _r(row["p_holm"]),
        )  # fmt: skip
    return table


def predicted_table(frame: "pd.DataFrame") -> Table:
    """What tells how much of the drift a repair undoes."""
    table = Table("repair", "predictor", box=SIMPLE_HEAD, pad_edge=False)
    for head in ("models", "cells", "rho [95 %]", "given drift [95 %]"):
        table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        both = [f"{_r(row[k])} [{_r(row[f'{k}_low'])}, {_r(row[f'{k}_high'])}]" for k in ("rho", "given_drift")]
        table.add_row(escape(row["method"]), row["predictor"], str(row["models"]), str(row["cells"]), *both)
    return table
