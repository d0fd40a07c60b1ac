"""Writes a sheet as one HTML page that labels are given on, and as CSV for those who would rather use a table."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..export import make_folder, replace_text
from ..html.embed import for_script, visible
from ..html.render import program, render
from .sheet import LABELS, Item, Sheet

__all__ = ["COLUMNS", "inert", "write_sheet"]

COLUMNS = ("sheet", "item", "label", "note", "prompt", "opening", "response", "said")
"""Of the CSV; a reviewer fills in the third and, if there is something to say, the fourth."""
SHOWN = 100_000
"""Characters of one text on the page."""
CELL = 30_000
"""Characters of one text in the CSV: spreadsheets cut cells after 32,767, some without a word."""
_FORMULA = re.compile(r"(^|[;\t\n])([\s\"']*)(?=[=+\-@＝＋－＠])")


def write_sheet(sheet: Sheet, path: Path) -> list[Path]:
    """Writes the page, and beside it the CSV of the same name.

    Args:
        sheet: what is labelled.
        path: of the page.

    Returns:
        Both files.

    Raises:
        InputError: a file cannot be written.
    """
    table = path.with_suffix(".csv")
    make_folder(path.parent)
    replace_text(path, _page(sheet))
    replace_text(table, _table(COLUMNS, (_row(sheet.id, item) for item in sheet.items)))
    return [path, table]


def inert(text: str) -> str:
    """The text for a cell of CSV: no program takes it, or a part of it, for a formula.

    What acts unseen is named (`visible`). An apostrophe goes before = + - @ where a cell begins, and also behind line
    breaks, tabs and semicolons, where one would begin for a program that splits there.
    """
    shown = visible(text, CELL)
    return _FORMULA.sub(r"\1\2'", shown[:CELL] + ("…" if len(shown) > CELL else ""))


def _page(sheet: Sheet) -> str:
    data = {"sheet": sheet.id, "items": [_packed(item) for item in sheet.items]}
    labels = [{"name": label.value, "key": about.key, "words": about.words} for label, about in LABELS.items()]
    return render(
        "review.html.jinja",
        {"program": program("page", "review")},
        {"review": for_script(data)},
        sheet=sheet.id,
        count=len(sheet.items),
        labels=labels,
        settling=any(item.said for item in sheet.items),
    )


def _packed(item: Item) -> dict[str, object]:
    """One item for the page's program."""
    return {
        "id": item.id,
        "prompt": visible(item.prompt, SHOWN),
        "prefix": visible(item.prefix, SHOWN),
        "text": visible(item.response, SHOWN),
        "said": [[each.label.value, visible(each.note)] for each in item.said],
    }


def _row(sheet: str, item: Item) -> Sequence[str]:
    said = "; ".join(f"{each.label} ({each.note})" if each.note else each.label for each in item.said)
    return [sheet, item.id, "", "", *map(inert, (item.prompt, item.prefix, item.response, said))]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([header, *rows])
    return text.getvalue()
