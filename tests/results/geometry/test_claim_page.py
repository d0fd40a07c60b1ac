"""The page of `geometry claim`: differences, ranks and cells as the tables have them, drawn in both themes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safebasin.results.geometry.claim import claim_charts, claim_page
from safebasin.results.geometry.preserved import predicted, preserved

from ..html.chromium import Page, chromium

Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


@pytest.fixture(scope="module")
def tables() -> Tables:
    draw, r, cells = np.random.default_rng(0), [], []
    for place in range(9):
        about = {"model": f"<b>{place}", "seed": 0}
        for key in (("harmful", "prompt"), ("harmful", "refusal"), ("task", "prompt"), ("qa", "prompt")):
            r.append({**about, "set": key[0], "target": key[1], "partial": draw.uniform(0, 0.9)})
        for method in ("one", "<b>two"):
            known = {name: draw.uniform(0, 1) for name in ("prompt", "refusal")}
            cells.append({**about, "method": method, "drift": 30 + 7 * place, **known, "undone": draw.uniform(0, 100)})
    frame = pd.DataFrame(cells)
    return preserved(pd.DataFrame(r)), predicted(frame, resamples=50), frame


def values(chart: Any, **wanted: Any) -> list[dict[str, Any]]:
    rows = chart.spec["data"]["values"]
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def test_charts_have_what_the_tables_have(tables: Tables) -> None:
    kept, told, cells = tables
    differences, ranks, dots = claim_charts(*tables)
    assert [row["value"] for row in values(differences)] == kept["difference"].tolist()
    assert [row["where"] for row in values(differences)] == ["prompt: task", "prompt: qa", "prompt: all other sets"]
    own = told[(told["method"] == "one") & (told["predictor"] == "refusal")].iloc[0]
    assert [row["value"] for row in values(ranks, method="one", where="refusal, by itself")] == [own["rho"]]
    assert [row["value"] for row in values(ranks, method="one", where="refusal, given drift")] == [own["given_drift"]]
    assert len(values(ranks, method="one")) == 5  # drift is not told given drift
    of = cells[cells["method"] == "one"]
    assert [row["undone"] for row in values(dots, method="one", by="drift")] == of["undone"].tolist()
    assert [row["x"] for row in values(dots, method="one", by="prompt")] == of["prompt"].tolist()


def test_without_cells_the_rest_is_shown(tables: Tables, library: Path, tmp_path: Path) -> None:
    nothing = pd.DataFrame()
    assert len(list(claim_charts(tables[0], nothing, nothing))) == 1
    assert claim_page(tables[0], nothing, nothing, {}, tmp_path, library).is_file()


def test_one_cell_is_a_dot_without_an_interval(library: Path, tmp_path: Path) -> None:
    r = [{"model": "m", "seed": 0, "set": name, "target": "prompt", "partial": 0.5} for name in ("harmful", "task")]
    kept, nothing = preserved(pd.DataFrame(r)), pd.DataFrame()
    (chart,) = claim_charts(kept, nothing, nothing)
    assert [(row["value"], row["low"], row["high"]) for row in values(chart)] == [(0, None, None)]
    text = claim_page(kept, nothing, nothing, {}, tmp_path, library).read_text(encoding="utf-8")
    assert "NaN" not in text.split('id="specs"')[1].split("</script>")[0]


def test_names_in_the_page_do_nothing(tables: Tables, library: Path, tmp_path: Path) -> None:
    text = claim_page(*tables, {}, tmp_path, library).read_text(encoding="utf-8")
    assert "<b>two" not in text
    assert "&lt;b&gt;two" in text
    assert "NaN" not in text.split('id="specs"')[1].split("</script>")[0]


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_all_charts_in_both_themes(page: Page, tables: Tables, library: Path, tmp_path: Path) -> None:
    page.open(claim_page(*tables, {}, tmp_path, library))
    page.wait_for("document.body.dataset.charts === '3'")
    for theme in ("light", "dark"):
        select = "document.getElementById('theme')"
        page.value(f"{select}.value = '{theme}', {select}.dispatchEvent(new Event('change'))")
        page.wait_for("document.querySelectorAll('.chart svg .mark-symbol path').length > 4")
        assert page.value("getComputedStyle(document.documentElement).colorScheme") == theme
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
