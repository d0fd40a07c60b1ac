"""The page of `geometry trajectory`: contours, paths and losses as the tables have them, drawn in both themes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safebasin.results.geometry.contours import cells, contour_lines
from safebasin.results.geometry.trajectory import GROUNDS, PATHS, trajectory_charts, trajectory_page

from ..html.chromium import Page, chromium

A, B = [-2.0, -1.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.5]
Tables = tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]


def heights(a: float, b: float) -> dict[str, float]:
    return {"harmful": a**2, "retain": b, "objective": a**2 + 2 * b}


@pytest.fixture
def tables() -> Tables:
    paths, grid, planes = [], [], []
    for preset in ("default", "<b>paper"):
        for size in (0.01, 0.05):
            about = {"preset": preset, "step_size": size}
            ended = {f"{name} ended": "all steps" for name in PATHS}
            planes.append({**about, "length": 0.3, "explained_1": 0.7, "explained_2": 0.2, "weight": 2.0, **ended})
            for name in PATHS:
                for step in range(3):
                    at = {"a": -1.5 + step, "b": 0.1 * step + (name == "first-order") * step / 2}
                    own = heights(**at) | ({"retain": float("inf")} if step == 2 else {})
                    paths.append({**about, "path": name, "step": step, **at, "off": 0.1, **own})
            grid += [{**about, "a": a, "b": b, **heights(a, b)} for a in A for b in B]
    grid[0]["objective"] = float("inf")
    return pd.DataFrame(paths), pd.DataFrame(grid), pd.DataFrame(planes)


def values(chart: Any, **wanted: Any) -> list[dict[str, Any]]:
    rows = chart.spec["data"]["values"]
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def test_a_circle_s_contours_are_circles() -> None:
    axis = np.linspace(-1, 1, 41)
    surface = axis[:, None] ** 2 + (axis[None, :] / 2) ** 2
    lines = list(contour_lines(surface, axis.tolist(), axis.tolist(), [0.25]))
    assert {row["wire"] for row in lines} <= {0, 1}
    assert all(row["a"] ** 2 + (row["b"] / 2) ** 2 == pytest.approx(0.25, abs=0.01) for row in lines)
    assert list(contour_lines(np.zeros((3, 3)), [0, 1, 2], [0, 1, 2])) == []


def test_cells_lie_around_their_points_on_axes_of_their_own() -> None:
    surface = np.arange(12.0).reshape(3, 4)
    found = list(cells(surface, [0, 1, 2], [0, 10, 20, 30]))
    assert found[5] == {"kind": "cell", "a": 0.5, "a2": 1.5, "b": 5, "b2": 15, "loss": 5}


def test_the_ground_is_the_grid_and_what_is_not_finite_is_left_out(tables: Tables) -> None:
    one, two, _ = trajectory_charts(*tables)
    own = values(one, kind="cell", preset="default", ground=GROUNDS["objective"])
    assert len(own) == 15
    assert len(values(two, kind="cell", preset="default", ground=GROUNDS["objective"])) == 16
    harmful = values(one, kind="cell", preset="default", ground=GROUNDS["harmful"])
    assert [row["loss"] for row in harmful] == [a**2 for a in A for _ in B]
    assert values(one, kind="line", ground=GROUNDS["retain"])


def test_paths_are_in_order_with_their_losses_and_the_plane_s_shares_are_told(tables: Tables) -> None:
    one, two, losses = trajectory_charts(*tables)
    own = values(one, kind="path", preset="default", path="first-order")
    assert [(row["step"], row["a"], row["b"]) for row in own] == [(0, -1.5, 0), (1, -0.5, 0.6), (2, 0.5, 1.2)]
    assert [row["retain"] for row in own] == [0, 0.6, None]
    assert "default: 70 % and 20 %" in one.caption
    assert (one.title, two.title) == ("Paths at step size 0.01", "Paths at step size 0.05")
    steps = values(losses, preset="default", size="0.05", path="curvature-aware", of=GROUNDS["objective"])
    assert [row["value"] for row in steps] == pytest.approx([2.25, 0.45, 0.65])
    assert len(values(losses, of=GROUNDS["retain"])) == 2 * 2 * 2 * 2


def test_names_in_the_page_do_nothing(tables: Tables, library: Path, tmp_path: Path) -> None:
    text = trajectory_page(*tables, {}, tmp_path, library).read_text(encoding="utf-8")
    assert "<b>paper" not in text
    assert "&lt;b&gt;paper" in text
    assert "NaN" not in text.split('id="specs"')[1].split("</script>")[0]


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
def test_a_browser_draws_all_charts_in_both_themes(page: Page, tables: Tables, library: Path, tmp_path: Path) -> None:
    page.open(trajectory_page(*tables, {}, tmp_path, library))
    page.wait_for("document.body.dataset.charts === '3'")
    for theme in ("light", "dark"):
        select = "document.getElementById('theme')"
        page.value(f"{select}.value = '{theme}', {select}.dispatchEvent(new Event('change'))")
        page.wait_for("document.querySelectorAll('.chart svg .mark-line path').length > 4")
        assert page.value("getComputedStyle(document.documentElement).colorScheme") == theme
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
