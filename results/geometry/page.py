"""One self-contained page of charts and tables, as report.html is one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..export import replace_text
from ..html.embed import for_script, visible
from ..html.library import chart_library
from ..html.render import program, render
from ..html.specs import Chart

__all__ = ["PageTable", "number", "write_page"]


@dataclass(frozen=True)
class PageTable:
    """A table of texts."""

    title: str
    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    """How many columns, from the first, are text."""
    folded: int | None = None
    """A column of texts that may be harmful, each folded until it is asked for."""


def number(value: float, digits: int = 3) -> str:
    """A number for a cell; a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def write_page(
    path: Path,
    title: str,
    lead: Sequence[str],
    charts: Sequence[Chart],
    tables: Sequence[PageTable],
    facts: Mapping[str, Any],
    library_cache: Path,
) -> None:
    """Writes the page.

    Args:
        path: of the page.
        title: its heading.
        lead: sentences under it.
        charts: section by section.
        tables: below the charts.
        facts: settings and digests, shown as JSON.
        library_cache: folder where the charts' library is kept between pages.

    Raises:
        InputError: the file cannot be written.
    """
    text = render(
        "geometry.html.jinja",
        {"library": chart_library(library_cache), "program": program("page", "geometry")},
        {"specs": for_script([chart.spec for chart in charts])},
        heading=title,
        lead=[visible(line) for line in lead],
        sections=[(name, list(group)) for name, group in groupby(enumerate(charts), lambda item: item[1].section)],
        tables=[_shown(table) for table in tables],
        facts=visible(json.dumps(facts, indent=1, ensure_ascii=False)),
    )
    replace_text(path, text)


def _shown(table: PageTable) -> dict[str, Any]:
    kinds = ["left" if place < table.left else "" for place in range(len(table.heads))]
    if table.folded is not None:
        kinds[table.folded] = "folded"
    rows = [[(kind, visible(cell)) for kind, cell in zip(kinds, row, strict=True)] for row in table.rows]
    heads = list(zip(kinds, table.heads, strict=True))
    return {"title": table.title, "caption": table.caption, "heads": heads, "rows": rows}
