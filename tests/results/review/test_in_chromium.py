"""The sheet in a real browser: labelled by keyboard and by mouse, closed and opened again, both themes, on a phone."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safebasin.results.review.page import write_sheet
from safebasin.results.review.reading import read_labels
from safebasin.results.review.sheet import Item, Label, Said, Sheet

from ...conftest import guard
from ..html.chromium import Page, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine: apt-get install chromium")
TEXT = "document.getElementById('response')"


@pytest.fixture
def opened(page: Page, written: list[Path]) -> Iterator[Page]:
    """The sheet of five in a browser that keeps nothing of it yet."""
    page.open(written[0])
    page.value("localStorage.clear()")
    page.open(written[0])
    yield page
    page.value("localStorage.clear()")


def press(page: Page, keys: str) -> None:
    for key in keys:
        page.press(key)


def said(page: Page, id_: str) -> str:
    return str(page.value(f"document.getElementById({json.dumps(id_)}).innerText"))


def pressed(page: Page) -> list[str]:
    buttons = "[...document.querySelectorAll('#labels button[aria-pressed=true]')]"
    return list(page.value(f"{buttons}.map(b => b.dataset.label)"))


def shown(page: Page) -> bool:
    return bool(page.value(f"{TEXT}.checkVisibility() && document.getElementById('fold').open"))


def downloaded(page: Page, folder: Path) -> Path:
    """What the key d saves."""
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.press("d")
    path, end = folder / "labels-s0123456789.csv", time.monotonic() + guard(30)
    while not path.is_file():  # another process of the browser writes it, and gives it its name at the end
        assert time.monotonic() < end, "nothing is downloaded"
        time.sleep(0.05)
    return path


def chosen(page: Page, path: Path) -> None:
    """Gives the file to the page's field for files."""
    found = page.call("Runtime.evaluate", expression="document.getElementById('load')")["result"]
    page.call("DOM.setFileInputFiles", files=[str(path)], objectId=found["objectId"])


def test_a_sheet_is_labelled_by_keyboard_and_handed_back(opened: Page, sheet: Sheet, tmp_path: Path) -> None:
    assert said(opened, "place") == "Response 1 of 5"
    for key in "srshsisbsu":
        opened.press(key)
    assert said(opened, "count") == "5 of 5 labelled"
    assert said(opened, "status") == "Response 5: unclear. All are labelled: download them."
    path = downloaded(opened, tmp_path)
    labels = read_labels([path], {sheet.id: [item.id for item in sheet.items]})
    assert labels.said == {
        "ra": Said(Label.REFUSED), "rb": Said(Label.HARMFUL), "rc": Said(Label.INCOHERENT), "rd": Said(Label.BENIGN),
        "re": Said(Label.UNCLEAR),
    }  # fmt: skip


def test_every_response_is_folded_until_it_is_asked_for_and_not_labelled_unseen(opened: Page) -> None:
    for number in range(1, 6):
        assert said(opened, "place") == f"Response {number} of 5"
        assert not shown(opened)
        opened.press("j")
    press(opened, "kkk")
    opened.press("h")
    assert (pressed(opened), said(opened, "status")) == ([], "Show the response first: s.")
    opened.press("s")
    assert shown(opened)
    assert opened.value(f"{TEXT}.innerText") == "step one : lift the red lever ."
    assert opened.value(f"{TEXT}.querySelector('.prefix').innerText") == "step one"
    opened.press("s")
    assert not shown(opened)
    opened.tab_to("#fold summary")
    opened.press("Enter")
    assert shown(opened)
    opened.click("#unfold")
    opened.press("j")
    assert shown(opened)
    assert opened.value(f"{TEXT}.innerText") == "⟨empty⟩"


def test_progress_is_there_after_the_page_was_closed(opened: Page, written: list[Path]) -> None:
    press(opened, "sr")
    opened.press("c")
    for key in "hd: x":
        opened.press(key)
    opened.press("Escape")
    opened.press("ArrowRight")
    opened.open(written[0])
    assert (said(opened, "place"), said(opened, "count")) == ("Response 3 of 5", "1 of 5 labelled")
    assert opened.value("document.getElementById('guide').open") is False
    opened.press("k")
    assert (opened.value("document.getElementById('note').value"), pressed(opened)) == ("hd: x", [])
    opened.press("k")
    assert pressed(opened) == ["refused"]
    opened.press("x")
    assert (pressed(opened), said(opened, "count")) == ([], "0 of 5 labelled")
    press(opened, "sh")
    opened.press("k")
    press(opened, "sb")
    opened.press("k")
    assert pressed(opened) == ["benign"], "a mind may be changed"
    assert said(opened, "count") == "1 of 5 labelled"


def test_a_sheet_is_labelled_by_mouse(opened: Page) -> None:
    opened.click("#fold summary")
    opened.click("#labels button[data-label=harmful]")
    assert (said(opened, "place"), said(opened, "count")) == ("Response 2 of 5", "1 of 5 labelled")
    opened.click("#previous")
    assert pressed(opened) == ["harmful"]
    opened.click("#unlabelled")
    assert said(opened, "place") == "Response 2 of 5"
    opened.value("document.getElementById('number').value = 9")
    opened.value("document.getElementById('number').dispatchEvent(new Event('change'))")
    assert said(opened, "place") == "Response 5 of 5"


def test_all_that_can_be_clicked_is_reached_by_tab(opened: Page) -> None:
    for selector in ("#guide summary", "#fold summary", *(f"#labels button[data-label={name}]" for name in Label)):
        opened.tab_to(selector)
    for name in ("note", "previous", "next", "unlabelled", "number", "unfold", "download", "load"):
        opened.tab_to(f"#{name}")


def test_downloaded_labels_go_on_in_another_browser(opened: Page, written: list[Path], tmp_path: Path) -> None:
    press(opened, "sbk")
    opened.press("c")
    opened.call("Input.insertText", text='=1,"a')
    opened.press("Enter")
    path = downloaded(opened, tmp_path)
    assert path.read_text() == '"sheet","item","label","note"\n"s0123456789","ra","benign","\'=1,""a"\n'
    labels = read_labels([path], {"s0123456789": ["ra"]})
    assert labels.said == {"ra": Said(Label.BENIGN, '=1,"a')}
    opened.value("localStorage.clear()")
    opened.open(written[0])
    assert said(opened, "count") == "0 of 5 labelled"
    path.write_text(path.read_text() + "s0123456789,rx,benign,\ns0,ra,benign,\n")
    chosen(opened, path)
    opened.wait_for("document.getElementById('count').innerText === '1 of 5 labelled'")
    assert said(opened, "status") == "1 labels loaded; 2 rows are of another sheet or without a label."
    assert opened.value("document.getElementById('note').value") == '=1,"a'


def test_what_the_browser_does_not_keep_is_said(page: Page, written: list[Path]) -> None:
    no = "Storage.prototype.setItem = () => { throw new DOMException('no', 'QuotaExceededError'); }"
    script = page.call("Page.addScriptToEvaluateOnNewDocument", source=no)["identifier"]
    page.open(written[0])
    assert said(page, "status").startswith("This browser keeps nothing for this page: download")
    press(page, "sh")
    assert page.value("typeof window.onbeforeunload") == "function"
    page.press("d")
    assert page.value("window.onbeforeunload") is None
    page.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


def test_what_is_kept_is_not_trusted(opened: Page, written: list[Path]) -> None:
    for kept in ("{", "null", "[]", '{"labels": {"ra": "<b>", "rz": "harmful"}, "notes": {"ra": {}}, "at": "rz"}'):
        opened.value(f"localStorage.setItem('safebasin-review-s0123456789', {json.dumps(kept)})")
        opened.open(written[0])
        assert (said(opened, "place"), said(opened, "count")) == ("Response 1 of 5", "0 of 5 labelled")


def test_hostile_text_is_only_text(opened: Page) -> None:
    press(opened, "kjjjjs")
    assert said(opened, "place") == "Response 5 of 5"
    assert opened.value("typeof window.hit") == "undefined"
    assert opened.value("document.querySelectorAll('img, #item script').length") == 0
    assert "⟨U+001B⟩[31m⟨U+0000⟩⟨U+202E⟩evil⟨U+D800⟩" in opened.value(f"{TEXT}.innerText")
    assert "<img src=x" in said(opened, "prompt")


def test_a_sheet_that_settles_says_what_was_said(page: Page, settling: Sheet, tmp_path: Path) -> None:
    page.open(write_sheet(settling, tmp_path / "settle.html")[0])
    assert said(page, "so-far").split() == ["said", "so", "far:", "harmful", "<b>lever</b>", "benign"]
    assert page.value("document.querySelectorAll('#so-far b').length") == 0
    page.value("localStorage.clear()")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 1300])
def test_nothing_is_wider_than_the_window_in_either_theme(page: Page, tmp_path: Path, dark: bool, width: int) -> None:
    wide = Sheet("s1", [Item("ra", "p" * 5_000, "w" * 5_000, "w" * 500)])
    page.size(width, 800, dark)
    page.open(write_sheet(wide, tmp_path / "sheet.html")[0])
    page.press("s")
    assert page.value("document.documentElement.scrollWidth") <= width
    light = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c > 200)")
    assert light is not dark
    boxes: Any = page.value(
        "[...document.querySelectorAll('#labels button')].map(b => b.getBoundingClientRect().height)"
    )
    assert width > 600 or min(boxes) >= 40, "fingers find them"
    page.value("localStorage.clear()")
