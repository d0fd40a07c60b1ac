"""The page of `geometry correlate`: what its charts show, and that a browser draws them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.results.geometry.correlate import MARKS, correlate_charts, correlate_page

from ..html.chromium import Page, chromium

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def values(chart: Any) -> list[dict[str, Any]]:
    return list(chart.spec["data"]["values"])


def test_means_are_those_of_the_table_without_iterations_and_counted_pads(tables: Tables) -> None:
    chart, *_ = correlate_charts(*tables)
    rows = {(row["where"], row["model"]): row["mean"] for row in values(chart)}
    known = tables[1].set_index(["set", "target", "model"])["mean"]
    assert rows["harmful, refusal", "tuned"] == known["harmful", "refusal", "tuned"]
    assert len(rows) == 3 * 4


def test_each_r_stands_beside_its_controls_and_the_unrelated_models(tables: Tables) -> None:
    _, chart, *_ = correlate_charts(*tables)
    rows = {(row["where"], row["model"], row["kind"]): row["r"] for row in values(chart)}
    known = tables[2].set_index(["set", "target", "model"])
    at = ("harmful", "prompt")
    assert rows["harmful, prompt", "tuned", MARKS["pearson"]] == known.loc[(*at, "tuned"), "pearson"]
    assert rows["harmful, prompt", "tuned", MARKS["matched"]] == known.loc[(*at, "tuned"), "matched"]
    assert rows["harmful, prompt", "tuned", MARKS["unrelated"]] == known.loc[(*at, "unrelated"), "pearson"]
    assert {kind for *_, kind in rows} == set(MARKS.values())


def test_the_path_goes_from_the_tuned_model_through_each_update(tables: Tables) -> None:
    *_, chart = correlate_charts(*tables)
    own = [row for row in values(chart) if (row["set"], row["target"]) == ("harmful", "refusal")]
    assert [row["step"] for row in own] == [0, 1, 2]
    known = tables[2].set_index(["set", "target", "model"])["pearson"]
    assert own[2]["r"] == known["harmful", "refusal", "iteration 2"]


def test_without_a_restoration_there_is_no_path_and_rows_without_r_are_left_out(tables: Tables) -> None:
    losses, means, found = (table[~table["model"].str.startswith("iteration")] for table in tables)
    charts = list(correlate_charts(losses, means, found.assign(partial=float("nan"))))
    assert len(charts) == 3
    assert MARKS["partial"] not in {row["kind"] for row in values(charts[1])}


def test_a_dot_is_an_example(tables: Tables) -> None:
    *_, chart, _ = correlate_charts(*tables)
    dots = [row for row in values(chart) if row["kind"] == "row"]
    assert len(dots) == 4 * 5 * 12 - 4 * 2 * 12  # five models beside the base, less the two iterations
    first = dots[0]
    losses = tables[0].set_index(["set", "target", "model", "row"])["loss"]
    assert first["x"] == pytest.approx(losses["harmful", "prompt", "base", first["row"]], abs=1e-4)


def test_the_page_is_one_file_and_names_in_it_do_nothing(tables: Tables, library: Path, tmp_path: Path) -> None:
    path = correlate_page(*tables, {"settings": {"base": "<script>"}}, tmp_path, library)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    text = path.read_text(encoding="utf-8")
    assert "<b>task" not in text
    assert "&lt;b&gt;task" in text
    assert "&lt;script&gt;" in text
    assert "default-src &#39;none&#39;" in text


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_all_charts(page: Page, tables: Tables, library: Path, tmp_path: Path) -> None:
    page.open(correlate_page(*tables, {}, tmp_path, library))
    page.wait_for("document.body.dataset.charts === '4'")
    assert page.value("[...document.querySelectorAll('.chart svg')].every(s => s.getBoundingClientRect().width > 200)")
    assert page.value("document.querySelectorAll('.chart svg [aria-label*=\"tuned\"]').length") > 5
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
