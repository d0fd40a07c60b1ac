"""The page of `geometry landscape`: what its charts show, and that a browser draws them and turns surfaces."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safebasin.restore.geometry.landscape import Plane, lines_of
from safebasin.restore.geometry.surfaces import Surfaces
from safebasin.results.geometry.landscape import landscape_charts, landscape_page

from ..html.chromium import Page, chromium

PLANE = Plane(points=5, reach=0.01)
CURVED = {"base": 1.0, "tuned": 2.0, "restored": -1.0}


def values(curve: float) -> list[dict[str, list[list[float]]]]:
    """A paraboloid, on two sets and two draws; the second draw is bent by three times as much."""

    def loss(a: float, b: float) -> float:
        return curve * 1e4 * (a**2 + 0.5 * a**2 * b * 1e2) + 3

    return [
        {name: [[loss(*p), 3 * loss(*p)] for p in line] for name in ("harmful", "<i>task")} for line in lines_of(PLANE)
    ]


@pytest.fixture
def surfaces() -> Surfaces:
    return Surfaces(PLANE, {name: values(curve) for name, curve in CURVED.items()}, {"base": values(1.0)})


def charts(surfaces: Surfaces) -> list[Any]:
    table, models = surfaces.table(), [*CURVED]
    coordinates = sorted(set(table["a"]))
    found = landscape_charts(
        surfaces.grid, surfaces.sets, models, coordinates, surfaces.sections(), surfaces.structures()
    )
    return [chart.spec["data"]["values"] for chart in found]


def test_each_point_is_on_two_wires_with_its_loss(surfaces: Surfaces) -> None:
    rows = [row for row in charts(surfaces)[0] if (row["set"], row["model"]) == ("harmful", "tuned")]
    assert len(rows) == 2 * 25
    grid = surfaces.grid("tuned", "harmful", 0)
    corner = [row for row in rows if (row["u"], row["v"]) == (1, -1)]
    assert {row["wire"] for row in corner} == {"tuned row 4", "tuned column 0"}
    assert {row["loss"] for row in corner} == {round(grid[4, 0], 5)}
    heights = [row["h"] for row in charts(surfaces)[0] if row["set"] == "harmful"]
    assert (min(heights), max(heights)) == (0, 1), "one scale for all models"


def test_contours_are_of_each_surface_and_of_its_difference(surfaces: Surfaces) -> None:
    rows = [row for row in charts(surfaces)[1] if row["set"] == "harmful"]
    assert list(dict.fromkeys(row["shown"] for row in rows)) == [*CURVED, "tuned less base", "restored less base"]
    cells = [row["loss"] for row in rows if row["shown"] == "tuned less base" and row["kind"] == "cell"]
    known = surfaces.grid("tuned", "harmful", 0) - surfaces.grid("base", "harmful", 0)
    assert cells == pytest.approx(known.ravel().tolist(), abs=1e-6)
    line = next(row for row in rows if row["shown"] == "base" and row["kind"] == "line")
    assert abs(line["a"]) <= 0.01


def test_sections_have_both_draws_and_structure_its_floors(surfaces: Surfaces) -> None:
    *_, sections, bars = charts(surfaces)
    own = [row for row in sections if (row["set"], row["model"], row["draw"]) == ("harmful", "base", "draw 1")]
    assert [row["at"] for row in own] == [*PLANE.section, *PLANE.section]
    found = {row["compared"]: row for row in bars if row["set"] == "harmful"}
    assert found["base and tuned, draw 1"]["signed"] == pytest.approx(0, abs=1e-6)
    assert found["base and restored, draw 1"]["signed"] == pytest.approx(200)
    assert found["base and restored, draw 1"]["absolute"] == pytest.approx(0, abs=1e-6)
    assert found["base, two pairs of directions"]["kind"].startswith("floor")


def written(surfaces: Surfaces, folder: Path, library: Path) -> Path:
    tables: list[pd.DataFrame] = [surfaces.table(), surfaces.sections(), surfaces.structures(), surfaces.percentiles()]
    return landscape_page(surfaces.grid, surfaces.sets, [*CURVED], *tables, {}, folder, library)


def test_flat_surfaces_are_shown_too(library: Path, tmp_path: Path) -> None:
    flat = [{"task": [[1.0, 1.0] for _ in line]} for line in lines_of(PLANE)]
    found = Surfaces(PLANE, {"base": flat, "tuned": flat, "restored": flat}, {})
    text = written(found, tmp_path, library).read_text(encoding="utf-8")
    assert "NaN" not in text.split('id="specs"')[1].split("</script>")[0]
    assert np.isnan(found.structures()["r"]).all()


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_all_charts_and_turns_the_surface(
    page: Page, surfaces: Surfaces, library: Path, tmp_path: Path
) -> None:
    page.open(written(surfaces, tmp_path, library))
    page.wait_for("document.body.dataset.charts === '4'")
    path = "document.querySelector('.chart svg .mark-line path').getAttribute('d')"
    before = page.value(path)
    slider = "document.querySelector('.chart input[type=range]')"
    page.value(f"{slider}.value = 120, {slider}.dispatchEvent(new Event('input', {{bubbles: true}}))")
    page.wait_for(f"{path} !== {before!r}")
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    assert "&lt;i&gt;task" in (tmp_path / "landscape.html").read_text(encoding="utf-8")
