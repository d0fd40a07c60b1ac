"""docs/config.md is what the code gives, and every key on it is explained."""

from pathlib import Path

import pytest
from safebasin.harness.config.reference import SECTIONS, reference

PAGE = Path(__file__).resolve().parents[3] / "docs" / "config.md"


def test_the_page_is_what_the_code_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "make docs writes it anew"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_has_its_row_and_its_meaning(heading: str) -> None:
    fields = SECTIONS[heading].model_fields
    assert [key for key, field in fields.items() if not field.description] == []
    _, _, section = reference().partition(f"## {heading}\n")
    rows = [line for line in section.partition("\n## ")[0].splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(fields)


def test_values_and_defaults_are_told() -> None:
    page = reference()
    assert "| `rank` | whole number > 0 | `32` | Of the LoRA adapter. |" in page
    assert "| `seeds` | list of whole number ≥ 0 | `[0]` |" in page
    assert "| `align` | [models: align](#models-align) | None |" in page
    assert "| `name` | text |  | Of the run" in page
