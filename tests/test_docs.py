"""docs/ becomes a site without a warning, and the site asks the network for nothing."""

import re
import shlex
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config as load_site
from safebasin.harness.config.load import load_config

ROOT = Path(__file__).resolve().parents[1]
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")
"""What a page loads by itself from elsewhere; links that a reader may follow are none of it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site's folder; a page out of the nav, a dead link or a dead anchor is an error."""
    folder = tmp_path_factory.mktemp("site")
    build(load_site(str(ROOT / "mkdocs.yml"), site_dir=str(folder)))
    return folder


def test_every_page_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 40
    names = {page.with_name("index.md") if page.name == "README.md" else page for page in pages}
    assert sorted(name for name in names if not (site / name).with_suffix(".html").is_file()) == []


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loads = {url for page in site.rglob("*.html") for url in FETCHED.findall(page.read_text(encoding="utf-8"))}
    assert loads == set()


def test_lists_and_tables_are_none_but_on_the_repository_s_page(site: Path) -> None:
    """The site's Markdown wants a blank line before a list, and four spaces before what belongs to an item."""
    raw = re.compile(r"^\s*(?:[-*] |\d+\. |\||```).*", re.MULTILINE)
    found = []
    for page in site.rglob("*.html"):
        _, _, text = page.read_text(encoding="utf-8").partition("<article")
        shown = raw.findall(re.sub(r"<pre>.*?</pre>|<script.*?</script>", "", text, flags=re.DOTALL))
        found += [f"{page.relative_to(site)}: {line.strip()[:80]}" for line in shown]
    assert found == []


def test_the_readme_s_links_lead_somewhere(site: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text)
    assert len(links) > 20
    assert [path for path, _ in links if not (ROOT / path).exists()] == []
    anchored = [(path, anchor) for path, anchor in links if anchor]
    pages = {path: site / Path(path).relative_to("docs").with_suffix(".html") for path, _ in anchored}
    pages |= {path: page.with_name("index.html") for path, page in pages.items() if page.name == "README.html"}
    dead = [f"{path}#{anchor}" for path, anchor in anchored if f'id="{anchor}"' not in pages[path].read_text("utf-8")]
    assert dead == []


def test_the_tutorial_s_run_is_one_that_a_config_allows() -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^safebasin run (?:.*\\\n)*.*", text, re.MULTILINE)
    _, _, config, _, _, *overrides = shlex.split(command.replace("\\\n", " "))
    assert load_config(ROOT / config, overrides).labels == ("base", "lora", "curvature", "shrink")
