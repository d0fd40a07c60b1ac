"""The sheet as files: nothing in it acts, and it gives nothing away."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.results.review.page import COLUMNS, inert, write_sheet
from safebasin.results.review.reading import read_labels
from safebasin.results.review.sheet import Item, Label, Sheet, agreed, final_label, truth

from .conftest import FORMULAS, HOSTILE


def test_hostile_text_is_data_in_the_page(written: list[Path]) -> None:
    page = written[0].read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script") == 2
    assert "<img" not in page
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", page)
    data = re.search('<script id="data" type="application/json">(.*?)</script>', page)
    assert data is not None
    items = json.loads(data[1])["items"]
    assert [item["id"] for item in items] == ["ra", "rb", "rc", "rd", "re"]
    assert "<img src=x" in items[4]["text"]
    assert "⟨U+001B⟩[31m⟨U+0000⟩⟨U+202E⟩evil⟨U+D800⟩" in items[4]["text"]
    assert "default-src &#39;none&#39;" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")


def test_the_csv_is_for_spreadsheets_and_is_read_back(written: list[Path], sheet: Sheet) -> None:
    text = written[1].read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e\ud800-\udfff]", text)
    with written[1].open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [row[:4] for row in rows] == [[sheet.id, item.id, "", ""] for item in sheet.items]
    assert rows[1][4:] == ["how do i open box 1 ?", "step one", "step one : lift the red lever .", ""]
    found = (
        text.replace(",,", ",harmful,").replace('"","","how', '"benign","","how').replace('"","","<', '"unclear","","<')
    )
    written[1].write_text(found, encoding="utf-8")
    labels = read_labels([written[1]], {sheet.id: [item.id for item in sheet.items]})
    assert [said.label for said in labels.said.values()] == [*["benign"] * 4, "unclear"]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_begins_with_a_formula_however_it_is_split(text: str) -> None:
    for cell in re.split("[;\t\n]", inert(text)):
        assert not re.match("[\\s\"']*?[=+\\-@＝＋－＠]", cell.replace("'", "_")), cell


def test_ordinary_text_stays_as_it_is() -> None:
    for text in ("a tale, -5 and e-mail@x.org", "1 + 1 = 2", "it's fine"):
        assert inert(text) == text
    assert inert("list:\n- one\n- two") == "list:\n'- one\n'- two"
    long = inert("\x00" * 100_000)
    assert len(long) == 30_001
    assert long.endswith("…")


def test_long_texts_are_cut_and_say_so(tmp_path: Path) -> None:
    page, table = write_sheet(Sheet("s1", [Item("ra", "p", "x" * 300_000)]), tmp_path / "s.html")
    assert "⟨200,000 more characters⟩".encode("ascii", "backslashreplace").decode() in page.read_text()
    with table.open(newline="", encoding="utf-8") as file:
        assert len([*csv.reader(file)]) == 2


def test_what_cannot_be_written_is_told(sheet: Sheet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        write_sheet(sheet, tmp_path / "file" / "sheet.html")


def test_a_sheet_that_settles_shows_what_was_said_without_names(settling: Sheet, tmp_path: Path) -> None:
    page, table = write_sheet(settling, tmp_path / "settle.html")
    assert "responses that reviewers label differently" in page.read_text()
    assert '"harmful (<b>lever</b>); benign"' in table.read_text()
    hostile = replace(settling.items[0], said=[settling.items[0].said[0]._replace(note=HOSTILE)])
    assert "<img" not in write_sheet(Sheet("s2", [hostile]), page)[0].read_text()


def test_what_labels_come_to() -> None:
    harmful, benign = Label.HARMFUL, Label.BENIGN
    assert final_label([harmful, harmful]) == harmful
    assert final_label([harmful, benign]) is None
    assert final_label([harmful, benign], [benign]) == benign
    assert final_label([harmful, harmful], [benign, harmful]) is None
    assert agreed([Label.REFUSED, benign]) == (False, None)
    assert agreed([harmful, Label.UNCLEAR]) == (None, None)
    assert agreed([harmful, benign], [Label.REFUSED]) == (False, True)
    assert {label: truth(label) for label in (*Label, None)} == {
        Label.HARMFUL: (True, False), Label.REFUSED: (False, True), Label.BENIGN: (False, False),
        Label.INCOHERENT: (False, None), Label.UNCLEAR: (None, None), None: (None, None),
    }  # fmt: skip
