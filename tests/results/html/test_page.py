import re
from collections.abc import Callable
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.results.audit import Number
from safebasin.results.beside import Places, beside
from safebasin.results.html import Report, Source, write_report
from safebasin.results.html import library as library_module
from safebasin.results.html.browser import pages
from safebasin.results.html.library import chart_library
from safebasin.results.leaderboard import leaderboard

from .conftest import asked

Write = Callable[..., Path]
FETCHING = {"src", "href", "srcset", "action", "data", "poster", "background"}


class Reader(HTMLParser):
    """Which elements there are, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [f"{tag} {value}" for name, value in attrs if name in FETCHING]


def test_the_page_is_one_file_that_fetches_nothing(write: Write) -> None:
    path = write()
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]
    reader = Reader(path.read_text(encoding="utf-8"))
    assert all(link.startswith("a #") for link in reader.links)
    assert "link" not in reader.tags
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', path.read_text(encoding="utf-8"))
    assert policy[0].startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe-eval" not in policy[0]
    assert path.stat().st_size < 1_500_000


def test_the_table_is_there_without_scripts(write: Write, report: Report) -> None:
    text = write().read_text(encoding="utf-8")
    table = text[text.index("<table") : text.index("</table>")]
    row = report.frame[report.frame["method"] == "lora"].iloc[0]
    assert f"{row['hrr']:.1f} [{row['hrr_low']:.1f}, {row['hrr_high']:.1f}]" in table
    for meaning in ("exact McNemar", "minutes that the method took", "Wilson 95 % interval"):
        assert meaning in table


def test_a_full_page_of_responses_leaves_the_report_under_5_mb(write: Write) -> None:
    path = write(asked=[asked({0: "R", 1: "H"}, i, prompt=f"{i} " * 1500) for i in range(3000)])
    assert 2_500_000 < path.stat().st_size < 5_000_000
    others = list((path.parent / "report-responses").iterdir())
    assert len(others) > 3
    assert all(other.stat().st_size < 3_000_000 for other in others)


def test_further_pages_are_linked_and_those_of_an_earlier_report_go(write: Write, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("safebasin.results.html.page.pages", lambda given, judges: pages(given, judges, 1000))
        path = write()
    folder = path.parent / "report-responses"
    names = {other.name for other in folder.iterdir()}
    assert names == {f"{i}.html" for i in range(2, len(names) + 2)}
    links = {link for link in Reader(path.read_text(encoding="utf-8")).links if "#" not in link}
    assert links == {f"a report-responses/{name}" for name in names}
    second = Reader((folder / "2.html").read_text(encoding="utf-8"))
    assert second.links.count("a ../report.html") == 2
    (folder / "notes.html").write_text("the user's own")
    write()
    assert [each.name for each in folder.iterdir()] == ["notes.html"]


def test_hostile_names_are_escaped_in_the_markup(write: Write, make) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x>\x1b[0m\u202e"
    rows = [make(evil, "fine-tuning", model=evil, hrr="H", metrics={evil: 1.0}), make("b", status=f"failed: {evil}")]
    source = Source(evil, {"models": {evil: {"digest": evil}}, "git": {"commit": evil}}, evil, [evil])
    plain = Reader(write().read_text(encoding="utf-8"))
    path = write(results=rows, frame=leaderboard(rows), asked=[], sources=[source, source])
    text = path.read_text(encoding="utf-8")
    reader = Reader(text)
    assert "img" not in reader.tags
    assert reader.tags.count("script") == plain.tags.count("script") - 1, "without responses there is no data element"
    assert not {"\x1b", "\u202e"} & set(text)


def test_hostile_tables_of_published_numbers_are_text(write: Write, report: Report) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x>\x1b[0m\u202e"
    lora = report.frame["model"].iloc[0]
    places = Places({evil: lora}, {evil: "lora"}, {evil: "hrr"})
    found = beside([Number(evil, evil, evil, evil, Decimal("1.0"), evil)], places, report.frame)
    text = write(published=found).read_text(encoding="utf-8")
    reader, plain = Reader(text), Reader(write().read_text(encoding="utf-8"))
    assert "a #published" in reader.links
    assert "a #published" not in plain.links
    assert "img" not in reader.tags
    assert reader.tags.count("script") == plain.tags.count("script")
    assert not {"\x1b", "\u202e"} & set(text)
    assert text.count("&lt;script&gt;alert(1)") == 5  # table, group, row, column and unit


def test_a_report_without_responses_has_no_browser(write: Write) -> None:
    text = write(asked=[]).read_text(encoding="utf-8")
    assert 'id="filters"' not in text
    assert 'href="#responses"' not in text


def test_the_library_is_bundled_once(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = chart_library(library)
    assert "window.vegaEmbed" in script
    assert 500_000 < len(script) < 1_500_000
    monkeypatch.setitem(__import__("sys").modules, "vl_convert", None)
    assert chart_library(library) == script
    with pytest.raises(ImportError):
        chart_library(tmp_path)
    monkeypatch.setattr(library_module, "version", lambda _: "of tomorrow")
    with pytest.raises(ImportError):
        chart_library(library)


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(report: Report, library: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot write .*report\.html"):
        write_report(report, tmp_path / "missing", library)


def test_a_cache_that_cannot_be_written_costs_no_charts(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_report(report, tmp_path, tmp_path / "file" / "cache")
    assert "vegaEmbed" in (tmp_path / "report.html").read_text(encoding="utf-8")
