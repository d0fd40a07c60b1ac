"""Writes report.html, and beside it the pages of responses that do not fit into it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..beside_view import HEADERS, LEFT, NOTE, TITLE, counts, lines
from ..display import Column, displayed, failures, heading, records, remarks
from ..export import make_folder, replace_text
from .browser import Page, pages
from .charts import charts
from .contents import Report, Source
from .embed import for_script, visible
from .library import chart_library
from .render import program, render

__all__ = ["PAGES", "REPORT", "write_report"]

REPORT = "report.html"
PAGES = "report-responses"
"""Folder of the further pages of responses."""
PROGRAM = ("page", "responses")
"""Scripts of every page."""


@dataclass(frozen=True)
class _Link:
    """One page of responses."""

    href: str
    name: str


def write_report(report: Report, folder: Path, library_cache: Path) -> list[Path]:
    """Writes report.html; what of the responses has no room in it goes to report-responses/2.html and so on.

    Args:
        report: everything on the page.
        folder: where it goes.
        library_cache: folder where the charts' library is kept between reports.

    Returns:
        The files written.

    Raises:
        InputError: a file cannot be written.
    """
    first, written, links = Page(), [], []
    known = _page_data(report)
    for number, page in enumerate(pages(report.asked, report.judges), start=1):
        links.append(_Link(f"{PAGES}/{number}.html" if number > 1 else REPORT, f"{page.first} to {page.last}"))
        if number == 1:
            first = page
            continue
        written.append(make_folder(folder / PAGES) / f"{number}.html")
        before = _Link(f"{number - 1}.html" if number > 2 else f"../{REPORT}", links[-2].name)
        replace_text(written[-1], _responses(known, page, number, before))
    _remove_others(folder / PAGES, written)
    replace_text(folder / REPORT, _report(report, known, first, links, chart_library(library_cache)))
    return [folder / REPORT, *written]


def _remove_others(folder: Path, written: Sequence[Path]) -> None:
    """Takes away pages of an earlier report that had more."""
    for path in folder.glob("*.html"):
        if path.stem.isdecimal() and path not in written:
            path.unlink(missing_ok=True)


def _report(report: Report, known: str, first: Page, links: Sequence[_Link], library: str) -> str:
    drawn = charts(report)
    scripts = {"library": library, "program": program(*PROGRAM)}
    data = {"specs": for_script([chart.spec for chart in drawn]), "responses": _responses_data(known, first)}
    return render(
        "report.html.jinja",
        scripts,
        data,
        heading=visible(heading(report.frame)),
        table=_table(report),
        failures=[(visible(each.which), visible(each.why)) for each in failures(report.frame)],
        remarks=remarks(report.frame),
        sections=[(name, list(group)) for name, group in groupby(enumerate(drawn), lambda item: item[1].section)],
        published=_published(report),
        any_responses=bool(first.prompts),
        pages=links,
        sources=[_facts(source) for source in report.sources],
    )


def _responses(known: str, page: Page, number: int, before: _Link) -> str:
    return render(
        "responses.html.jinja",
        {"program": program(*PROGRAM)},
        {"responses": _responses_data(known, page)},
        number=number,
        before=before,
        up=f"../{REPORT}",
        name=f"{page.first} to {page.last}",
    )


def _page_data(report: Report) -> str:
    """What every page of responses has to know, as the inside of a JSON object."""
    several = [name for name in ("model", "seed") if report.frame[name].nunique() > 1]
    rows = [
        {
            "name": visible(" / ".join([r.method, *(f"{name} {getattr(r, name)}" for name in several)])),
            "model": visible(r.model),
        }
        for r in report.results
    ]
    judges = [{"name": visible(judge.name), "decides": sorted(judge.decides)} for judge in report.judges]
    return for_script({"rows": rows, "judges": judges})[1:-1]


def _responses_data(known: str, page: Page) -> str:
    return "{" + known + ',"prompts":[' + ",".join(page.prompts) + "]}"


def _table(report: Report) -> dict[str, Any]:
    columns = displayed(report.frame, "markdown")
    rows = [
        {
            "failed": row["status"] != "ok",
            "cells": [
                {"text": visible(column.cell(row)), "value": _sortable(row[column.source]), "kind": _kind(column)}
                for column in columns
            ],
        }
        for row in records(report.frame)
    ]
    return {"columns": [_header(column) for column in columns], "rows": rows}


def _published(report: Report) -> dict[str, Any] | None:
    """Published numbers beside measured ones."""
    frame = report.published
    if frame is None:
        return None
    kinds = ["left" if header in LEFT else "" for header in HEADERS]
    rows = [list(zip(map(visible, cells), kinds, strict=True)) for cells in lines(frame)]
    headers = list(zip((header.replace("[95 %]", "[95\u00a0%]") for header in HEADERS), kinds, strict=True))
    return {"title": TITLE, "remarks": [counts(frame), NOTE], "headers": headers, "rows": rows}


def _header(column: Column) -> dict[str, Any]:
    name = visible(column.header).replace("[95 %]", "[95\u00a0%]")
    return {"name": name, "meaning": column.meaning, "kind": _kind(column)}


def _kind(column: Column) -> str:
    """Classes of its cells; what the terminal never shows, intervals apart, is minor: shown when it is asked for."""
    minor = column.only == "markdown" and not column.header.endswith("[95 %]")
    return " ".join(["left"] * column.left + ["minor"] * minor)


def _sortable(value: Any) -> str:
    return "" if value is None else visible(str(value))


def _facts(source: Source) -> dict[str, Any]:
    """The manifest's main facts in words, and all of it."""
    manifest = source.manifest
    git = manifest.get("git") or {}
    commit = f"{git.get('commit')}{', with changes not committed' if git.get('dirty') else ''}" if git else None
    hardware = manifest.get("hardware") or {}
    lines = {
        "written": manifest.get("written"),
        "safebasin": manifest.get("safebasin"),
        "git commit": commit,
        "Python": manifest.get("python"),
        "processor": hardware.get("processor"),
        "GPUs": ", ".join(map(str, hardware.get("gpus") or [])) or None,
        "engine": manifest.get("engine"),
        "seeds": ", ".join(map(str, manifest.get("seeds") or [])) or None,
        **{f"model {name}": _digest(facts) for name, facts in (manifest.get("models") or {}).items()},
    }
    return {
        "name": visible(source.name),
        "facts": [(visible(name), visible(str(value))) for name, value in lines.items() if value],
        "manifest": visible(json.dumps(manifest, indent=1, ensure_ascii=False)) if manifest else "",
        "config": visible(source.config),
        "commands": [visible(command) for command in source.commands],
    }


def _digest(facts: Mapping[str, Any]) -> str:
    revision = f", revision {facts['revision']}" if facts.get("revision") else ""
    return f"digest {facts.get('digest', 'not known')}{revision}"
