"""Labels that come back: what is right is read, what is wrong is told with its file and line, without a traceback."""

import csv
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.results.review.page import write_sheet
from safebasin.results.review.reading import Labels, read_labels
from safebasin.results.review.sheet import Item, Label, Said, Sheet

ITEMS = ["ra", "rb", "rc"]
SHEETS = {"s1": ITEMS, "s2": ["rz"]}
GOOD = "sheet,item,label,note\ns1,ra,harmful,\ns1,rb,refused,look\ns1,rc,unclear,\n"
SAID = {"ra": Said(Label.HARMFUL), "rb": Said(Label.REFUSED, "look"), "rc": Said(Label.UNCLEAR)}
ODD = [b'"', b"\n", b",", b"\0", b"\r", "\u202e".encode(), b"\xff", b"=", b"s9", b";"]
Given = Callable[..., Path]


@pytest.fixture
def given(tmp_path: Path) -> Given:
    def write(content: str | bytes, name: str = "labels.csv") -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def refusal(*paths: Path, partial: bool = False) -> list[str]:
    """The lines of the message, without the folder."""
    with pytest.raises(InputError) as error:
        read_labels(paths, SHEETS, ["s9"], partial)
    head, *lines = str(error.value).replace(f"{paths[0].parent}/", "").splitlines()
    assert head.startswith(f"{len(lines)} fault")
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t").encode("utf-16"),
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("harmful", " HARMFUL ").replace("sheet", " Sheet"),
        GOOD.replace("\n", "\n\n,,,\n"),
        "response,note,label,item,sheet\n" + '"a\n""b"",\n",,harmful,ra,s1\nx,look,refused,rb,s1\n,,unclear,rc,s1\n',
    ],
)
def test_what_spreadsheets_make_of_it_is_read(given: Given, content: str | bytes) -> None:
    assert read_labels([given(content)], SHEETS) == Labels("s1", SAID)


def test_a_comment_is_as_it_was_typed(given: Given) -> None:
    for cell, note in (("'=1+1", "=1+1"), ("'tis", "'tis"), ("'", "'"), ("x" * 5_000, "x" * 2_000)):
        read = read_labels([given(GOOD.replace("look", cell))], SHEETS)
        assert read.said["rb"].note == note


def test_several_files_are_put_together_and_a_part_is_taken_if_it_is_called_one(given: Given) -> None:
    head, *rows = GOOD.splitlines(keepends=True)
    one, two = given(head + rows[0], "1.csv"), given(head + rows[1] + rows[2], "2.csv")
    assert read_labels([one, two], SHEETS).said == SAID
    assert read_labels([one], SHEETS, partial=True).said == {"ra": SAID["ra"]}
    assert refusal(one) == ["2 of 3 items are in no file (rb, rc); label it (`unclear` is a label), or give --partial"]


def test_every_fault_is_told_at_once_in_the_order_of_files_and_lines(given: Given) -> None:
    text = "sheet,item,label,note\ns1,ra,harmfull,\ns1,rx,benign,\ns1,rb,,\ns3,rb,benign,\ns9,rb,benign,\n"
    text += "s1,rc,benign,\ns1,rc,benign,\ns1,rc,benign,a,b\ns2,rz,benign,\n"
    found = refusal(given(text), given(b"sheet,item,label\ns1,r\xe9,benign\n", "b.csv"), given("item\n", "c.csv"))
    assert found == [
        "labels.csv, line 2: 'harmfull' is no label. Did you mean 'harmful'? Known: benign, harmful, incoherent, "
        "refused, unclear.",
        "labels.csv, line 3: there is no item 'rx' on the sheet s1",
        "labels.csv, line 4: rb has no label; label it (`unclear` is a label), or give --partial",
        "labels.csv, line 5: this run has no sheet 's3'. Did you mean 's2'? Known: s1, s2.",
        "labels.csv, line 6: the sheet s9 was drawn from another run; give the folder of that run",
        "labels.csv, line 8: rc is labelled already, in labels.csv, line 7; keep one of the two",
        "labels.csv, line 9: 5 cells where the header has 4; put quotes around what holds a separator",
        "labels.csv, line 10: the sheet s2 is not s1, as in rows before; import one sheet at a time",
        "b.csv, line 2: it is no UTF-8; save it as CSV in UTF-8",
        "c.csv, line 1: it needs the columns sheet, item, label, each once; not so: sheet, label",
    ]


def test_lines_are_counted_where_cells_have_line_breaks(given: Given) -> None:
    text = 'sheet,item,label,response\ns1,ra,benign,"a\nb\nc"\n\ns1,rb,wrong,x\ns1,rc,benign,x\n'
    (found,) = refusal(given(text))
    assert found.startswith("labels.csv, line 6: 'wrong' is no label.")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it needs the columns"),
        ("sheet,item,label\n", "there is no row in any file"),
        ('sheet,item,label\ns1,ra,benign\ns1,rb,"benign\n', "line 3: it is no CSV from here on"),
        ("sheet,item,label,label\ns1,ra,benign,benign\n", "not so: label"),
        ("sheet,item,label\n" + "s1,ra,\x1b[31mred\n" * 3, "'⟨U+001B⟩[31mred' is no label"),
        ("sheet,item,label\ns1," + "r" * 200_000 + ",benign\n", "line 2: it is no CSV from here on"),
    ],
)
def test_what_is_no_file_of_labels(given: Given, content: str, said: str) -> None:
    assert said in "\n".join(refusal(given(content), partial=True))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    found = refusal(tmp_path / "none.csv", tmp_path, Path("a\0b"))
    assert [line.rpartition(": ")[2] for line in found] == [
        "it cannot be read (No such file or directory)", "it cannot be read (Is a directory)",
        "it cannot be read (embedded null byte)",
    ]  # fmt: skip


def test_mutated_files_are_read_right_or_refused(given: Given) -> None:
    """400 files with bytes changed, cut, doubled or put elsewhere: an InputError, or labels that stand there."""
    hostile = ['=1+1,"x"', "a\n\nb;c\t\0", "\u202e\x1b[31m"]
    sheet = Sheet("s1", [Item(name, "p", text) for name, text in zip(ITEMS, hostile, strict=True)])
    _, table = write_sheet(sheet, given("", "sheet.html"))
    rows = list(csv.reader(table.open(newline="", encoding="utf-8")))
    for row, label in zip(rows[1:], ("harmful", "refused", "unclear"), strict=True):
        row[2] = label
    whole = "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows).encode() + b"\n"
    change, outcomes, told = random.Random(7), {True: 0, False: 0}, ""
    for _ in range(400):
        content = bytearray(GOOD.encode() if change.random() < 0.5 else whole)
        for _ in range(change.randint(1, 4)):
            mutate(content, change)
        path = given(bytes(content))
        try:
            found = read_labels([path], SHEETS, ["s9"], partial=change.random() < 0.5)
        except InputError as error:
            outcomes[False] += 1
            told += str(error)
            continue
        outcomes[True] += 1
        assert found.sheet in SHEETS
        assert {*found.said} <= {*SHEETS[found.sheet]}
        text = content.decode("utf-8-sig").casefold()
        assert all(each.label in text for each in found.said.values())
    assert min(outcomes.values()) > 40, outcomes
    assert told.replace("\n", "").isprintable()


def mutate(content: bytearray, change: random.Random) -> None:
    at = change.randrange(len(content) + 1)
    piece = bytes(content[at : at + change.randint(1, 30)])
    match change.randrange(6):
        case 0:
            content[at : at + 1] = bytes([change.randrange(256)])
        case 1:
            del content[at : at + len(piece)]
        case 2:
            content[at:at] = piece
        case 3:
            content += piece
        case 4:
            content[at:at] = change.choice(
                [b'"', b"\n", b",", b"\0", b"\r", "\u202e".encode(), b"\xff", b"=", b"s9", b";"]
            )
        case _:
            del content[at + 40 :]
