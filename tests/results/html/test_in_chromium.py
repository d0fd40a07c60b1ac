"""The report in a real browser: by mouse, by keyboard, in both themes, at the width of a phone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safebasin.results.html import Asked, Report

from .chromium import Page, chromium
from .conftest import METHODS, answer, asked

PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: apt-get install chromium")
Write = Callable[..., Path]
SHOWN = "[...document.querySelectorAll('#list .item')].filter(e => e.checkVisibility()).length"
HOSTILE = "<script>window.hit = 1</script></script><img src=x onerror='window.hit = 1'>"
HOSTILE += "\x1b[31m\x00\u202eevil\ud800 ${1} {{1}}"


def column(page: Page, number: int) -> list[str]:
    return list(page.value(f"[...document.querySelectorAll('#board tbody tr')].map(r => r.cells[{number}].innerText)"))


def headers(page: Page) -> list[str]:
    return list(page.value("[...document.querySelectorAll('#board th')].map(h => h.innerText.replace(/\\s+/g, ' '))"))


def choose(page: Page, name: str, value: str) -> None:
    field = f"document.getElementById('filters').elements[{json.dumps(name)}]"
    page.value(f"{field}.value = {json.dumps(value)}, {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")


def charts_drawn(page: Page, number: int) -> None:
    page.wait_for(f"document.body.dataset.charts === '{number}' && document.querySelectorAll('.chart svg').length > 0")


def test_all_charts_are_drawn_with_words_for_those_who_do_not_see(page: Page, write: Write) -> None:
    page.open(write())
    count = page.value("document.querySelectorAll('.chart').length")
    assert count == 2 + 3 + 1 + 3 + 1 + 1 + 1 + 4
    charts_drawn(page, count)
    labels = page.value(
        "[...document.querySelectorAll('.chart svg [aria-label]')].map(e => e.getAttribute('aria-label'))"
    )
    assert sum("repaired" in label for label in labels) > 5


def test_a_header_sorts_by_mouse_and_back(page: Page, write: Write) -> None:
    page.open(write())
    assert column(page, 0) == [*METHODS]
    at = headers(page).index("HRR [95 %]")
    page.click(f"#board th:nth-child({at + 1}) button")
    assert column(page, 0) == ["base", "repaired", "lora"]
    assert page.value(f"document.querySelectorAll('#board th')[{at}].getAttribute('aria-sort')") == "ascending"
    page.click(f"#board th:nth-child({at + 1}) button")
    assert column(page, 0) == ["lora", "repaired", "base"]


def test_a_header_sorts_by_keyboard_and_empty_values_stay_last(page: Page, write: Write) -> None:
    page.open(write())
    at = headers(page).index("min")
    page.tab_to(f"#board th:nth-child({at + 1}) button")
    for _ in range(2):
        page.press("Enter")
        assert column(page, at)[-1] == "-"
    assert column(page, 0)[-1] == "base"


def test_all_columns_come_when_they_are_asked_for(page: Page, write: Write) -> None:
    page.open(write())
    visible = "[...document.querySelectorAll('#board th')].filter(h => h.checkVisibility()).length"
    few = page.value(visible)
    page.click("#columns input")
    assert page.value(visible) == len(headers(page)) > few


def test_harmful_text_is_folded_until_it_is_asked_for(page: Page, write: Write) -> None:
    page.open(write())
    closed = "[...document.querySelectorAll('#list details')].filter(d => !d.open).length"
    harmful = page.value(closed)
    letters = [outcomes for _, outcomes in METHODS.values()]
    assert harmful == sum(len({o for o in column if o in "HU"}) for column in zip(*letters, strict=True)) + 8
    assert page.value("document.querySelector('#list').innerText.includes('lift the red lever')") is False
    page.tab_to("#list details summary")
    page.press("Enter")
    assert page.value("document.querySelector('#list').innerText.includes('lift the red lever')") is True
    assert page.value(closed) == harmful - 1
    page.press(" ")
    assert page.value(closed) == harmful
    page.click("#list details summary")
    assert page.value(closed) == harmful - 1
    page.click("#filters input[name=unfold]")
    assert page.value(closed) == 0


def test_filters_leave_what_was_asked_for(page: Page, write: Write) -> None:
    page.open(write())
    assert page.value(SHOWN) == 16
    choose(page, "task", "toy_hrr")
    assert page.value(SHOWN) == 8
    choose(page, "row", "1")
    choose(page, "outcome", "harmful")
    assert page.value(SHOWN) == METHODS["lora"][1].count("H")
    assert "5 of 16 prompts" in page.value("document.getElementById('count').innerText")
    choose(page, "outcome", "")
    choose(page, "row", "")
    page.click("#filters input[name=differ]")
    assert page.value(SHOWN) == 7, "only the last prompt has the same outcome in all rows"
    page.click("#filters input[name=differ]")
    page.click("#filters input[name=disagree]")
    assert page.value(
        "[...document.querySelectorAll('#list .said')].every(e => /disagree on|forced/.test(e.innerText))"
    )
    page.click("#filters input[name=disagree]")
    choose(page, "text", "BOX 3")
    assert page.value(SHOWN) == 1


def test_a_filter_is_set_by_keyboard(page: Page, write: Write) -> None:
    page.open(write())
    page.tab_to("#filters select[name=task]")
    page.press("ArrowDown")
    page.wait_for(f"{SHOWN} === 8")


def test_two_methods_stand_side_by_side_with_the_difference_marked(page: Page, write: Write) -> None:
    rows = {0: answer("R", "i will not open the box ."), 1: answer("R", "i will not open that door .")}
    page.open(write(asked=[Asked("toy", "toy_hrr", 0, "open it", "", rows)]), "#row=0&beside=1")
    marks = "answer => [...answer.querySelectorAll('mark')].map(mark => mark.innerText)"
    assert page.value(f"[...document.querySelectorAll('.pair .answer')].map({marks})") == [
        ["the", "box"],
        ["that", "door"],
    ]
    page.size(390, 800)
    left, right = page.value("[...document.querySelectorAll('.pair .answer')].map(a => a.getBoundingClientRect().x)")
    assert left == right, "on a phone one stands below the other"


def test_filters_go_along_to_further_pages(page: Page, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safebasin.results.html.page.pages", pages_of(2000))
    path = write()
    page.open(path)
    assert page.value("document.querySelectorAll('nav.pages a').length") == len(list(path.parent.glob("*/*.html")))
    choose(page, "text", "box")
    page.click("nav.pages summary")
    page.click("nav.pages a")
    page.wait_for("location.pathname.endsWith('report-responses/2.html') && document.readyState === 'complete'")
    page.wait_for(f"{SHOWN} > 0")
    assert page.value("document.getElementById('filters').elements.text.value") == "box"


def pages_of(limit: int) -> Callable[..., Any]:
    from safebasin.results.html.browser import pages

    return lambda prompts, judges: pages(prompts, judges, limit)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1300])
def test_nothing_is_wider_than_the_window_in_either_theme(page: Page, write: Write, dark: bool, width: int) -> None:
    page.size(width, 800, dark)
    page.open(write())
    charts_drawn(page, 16)
    assert page.value("document.documentElement.scrollWidth") <= width
    light = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c > 200)")
    assert light is not dark
    assert page.value("[...document.querySelectorAll('.chart svg')].every(s => s.getBoundingClientRect().width > 200)")
    fill = "getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill"
    assert page.value(f"{fill}.match(/\\d+/g).every(c => c > 128)") is dark


def test_the_switch_overrules_the_system(page: Page, write: Write) -> None:
    page.open(write())
    before = page.value("getComputedStyle(document.body).backgroundColor")
    page.tab_to("#theme")
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.wait_for(f"getComputedStyle(document.body).backgroundColor !== {json.dumps(before)}")
    page.value("localStorage.clear()")


def test_hostile_text_is_only_text(page: Page, write: Write, report: Report, make: Callable[..., Any]) -> None:
    from safebasin.results.leaderboard import leaderboard

    rows = [
        make(HOSTILE.encode(errors="replace").decode(), "fine-tuning", model="<b>m</b>", hrr="HR", metrics={"<i>": 1.0})
    ]
    texts = [HOSTILE, "x" * 1_000_000, "</script><!--<script>", "\u2028\u2029"]
    prompts = [Asked(HOSTILE, HOSTILE, i, HOSTILE, HOSTILE, {0: answer("R", text)}) for i, text in enumerate(texts)]
    page.open(write(results=rows, frame=leaderboard(rows), asked=[*prompts, asked({0: "H"}, 9, HOSTILE)]), "#unfold=on")
    page.wait_for("!!document.body.dataset.charts")
    assert page.value(SHOWN) == 5
    assert page.value("typeof window.hit") == "undefined"
    assert page.value("document.querySelectorAll('img, #list script, b, i').length") == 0
    text = page.value("document.querySelector('#list').innerText")
    assert "<img src=x" in text
    assert "⟨U+202E⟩evil⟨U+D800⟩" in text
    assert "⟨980,000 more characters⟩" in text
    assert page.value("document.documentElement.scrollWidth") <= 1300


def test_a_script_that_got_into_the_page_would_not_run(page: Page, write: Write) -> None:
    path = write()
    path.write_text(
        path.read_text().replace("<h1>", "<script>window.hit = 1</script><img src='http://127.0.0.1:9/x'><h1>")
    )
    page.open(path)
    assert page.value("typeof window.hit") == "undefined"
    assert sum("Content Security Policy" in complaint for complaint in page.complaints) >= 2
    assert page.requests.pop() == "http://127.0.0.1:9/x", "asked for, and blocked before it left"
    page.complaints.clear()
