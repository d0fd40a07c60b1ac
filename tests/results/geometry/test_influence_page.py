"""The page of `geometry influence`: what its charts and tables show, and that a browser draws them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safebasin.results.geometry.influence import half_of_the_update, influence_charts, influence_page

from ..html.chromium import Page, chromium

HARM = "placeholder <b>request</b>"


@pytest.fixture
def examples() -> pd.DataFrame:
    shares = [0.4, 0.3, 0.2, 0.15, -0.05]
    terms = ["base_divergence"] * 3 + ["retain_batch_loss"] * 2
    return pd.DataFrame(
        [
            {
                **{"rank": rank, "term": term, "set": "forget", "row": 10 + rank, "tokens": 5, "loss": 1.5},
                **{"share": share, "turn": float("nan") if rank == 1 else 3.0, "gradient_norm": 1.0, "prompt": HARM},
            }
            for rank, (share, term) in enumerate(zip(shares, terms, strict=True), start=1)
        ]
    )


@pytest.fixture
def costs() -> pd.DataFrame:
    rows = [(2, 0.5, 0.7, 0.1), (0, 0.5, 0.4, -0.1)]
    return pd.DataFrame(
        [
            {
                **{"rank": rank, "row": row, "tokens": 4, "before": before, "after": after},
                **{"first_order": slope, "cost": after - before, "prompt": "say"},
            }
            for rank, (row, before, after, slope) in enumerate(rows, start=1)
        ]
    )


def values(chart: Any) -> list[dict[str, Any]]:
    return list(chart.spec["data"]["values"])


def test_bars_are_shares_in_percent_and_half_of_them_is_told(examples: pd.DataFrame, costs: pd.DataFrame) -> None:
    bars, cumulated, _ = influence_charts(examples, costs)
    assert [row["share"] for row in values(bars)] == [40, 30, 20, 15, -5]
    assert values(bars)[0]["turn"] is None
    assert values(bars)[3]["of"] == "rows of the task"
    assert half_of_the_update(examples) == 2
    assert "first 2 of 5 examples make half" in cumulated.caption
    assert [row["sum"] for row in values(cumulated) if "sum" in row] == pytest.approx([0, 40, 70, 90, 105, 100])


def test_a_dot_is_a_row_beside_what_its_gradient_said(examples: pd.DataFrame, costs: pd.DataFrame) -> None:
    *_, chart = influence_charts(examples, costs)
    dots = [row for row in values(chart) if "cost" in row]
    assert [(row["row"], row["first_order"], row["cost"]) for row in dots] == [(2, 0.1, 0.2), (0, -0.1, -0.1)]
    assert [row["same"] for row in values(chart) if "same" in row] == [-0.1, 0.1]


def test_prompts_are_folded_and_do_nothing(
    examples: pd.DataFrame, costs: pd.DataFrame, library: Path, tmp_path: Path
) -> None:
    text = influence_page(examples, costs, {}, tmp_path, library).read_text(encoding="utf-8")
    assert HARM not in text
    shown = "placeholder &lt;b&gt;request&lt;/b&gt;"
    assert text.count(shown) == text.count(f'<details><summary>show</summary><div class="text" dir="auto">{shown}') == 5
    assert "placeholder" not in text.split('id="specs"')[1].split("</script>")[0]


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_all_charts_and_unfolds_a_prompt(
    page: Page, examples: pd.DataFrame, costs: pd.DataFrame, library: Path, tmp_path: Path
) -> None:
    page.open(influence_page(examples, costs, {}, tmp_path, library))
    page.wait_for("document.body.dataset.charts === '3'")
    cell = "document.querySelector('td.folded .text')"
    assert not page.value(f"{cell}.checkVisibility()")
    page.value("document.querySelector('td.folded summary').click()")
    assert page.value(f"{cell}.checkVisibility()")
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
