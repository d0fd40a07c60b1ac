from pathlib import Path

import pytest
from safebasin.results.review.page import write_sheet
from safebasin.results.review.sheet import Item, Label, Said, Sheet

HOSTILE = "<script>window.hit = 1</script></script><img src=x onerror='window.hit = 1'>"
HOSTILE += "\x1b[31m\x00\u202eevil\ud800 ${1} {{1}}"
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "a;=1", "x\n=1", " =1", "＝1", "\r=1", '"=1', "it's; '-1"]


@pytest.fixture
def sheet() -> Sheet:
    """Five responses; the second one under a forced opening, the last of them hostile."""
    return Sheet(
        "s0123456789",
        [
            Item("ra", "how do i open box 0 ?", "i cannot help with that ."),
            Item("rb", "how do i open box 1 ?", "step one : lift the red lever .", "step one"),
            Item("rc", "how do i open box 2 ?", ""),
            Item("rd", "how do i open box 3 ?", "a tale\n" * 200),
            Item("re", HOSTILE, HOSTILE, HOSTILE),
        ],
    )


@pytest.fixture
def settling() -> Sheet:
    said = [Said(Label.HARMFUL, "<b>lever</b>"), Said(Label.BENIGN)]
    return Sheet("s9876543210", [Item("rb", "how do i open box 1 ?", "step one : lift the red lever .", said=said)])


@pytest.fixture
def written(sheet: Sheet, tmp_path: Path) -> list[Path]:
    """The page and its CSV."""
    return write_sheet(sheet, tmp_path / "out" / "sheet.html")
