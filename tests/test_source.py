"""What a digest of source depends on: what the source does."""

from pathlib import Path

import pytest
from safebasin.source import source_digest

SOURCE = """
from dataclasses import dataclass
from typing import TYPE_CHECKING

@dataclass
class Rule:
    share: float = 0.5

    def of(self, rows: list[int], least: int = 1) -> int:
        kept: int = round(self.share * len(rows))
        return max(kept, least)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rule.py"
    path.write_text(SOURCE)
    return path


def changed(file: Path, old: str, new: str) -> bool:
    """Whether an edit changes the digest; it must be one, and leave Python."""
    assert old in SOURCE
    before = source_digest([file])
    file.write_text(SOURCE.replace(old, new))
    compile(file.read_text(), "rule.py", "exec")
    return source_digest([file]) != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("class Rule:\n", 'class Rule:\n    """A rule."""\n'),
        ("= 0.5\n", '= 0.5\n    """Of the rows."""\n'),
        ("        return max", "        # at least one\n        return max"),
        (") -> int:", "):"),
        ("rows: list[int]", "rows: tuple[int, ...]"),
        ("kept: int = ", "kept = "),
        ("max(kept, least)", "max(\n            kept, least\n        )"),
        ("@dataclass\n", "if TYPE_CHECKING:\n    import ast\n\n@dataclass\n"),
    ],
)
def test_what_does_nothing_does_not_count(file: Path, old: str, new: str) -> None:
    assert not changed(file, old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.5", "0.25"), ("least: int = 1", "least: int = 2"), ("max(", "min("), ("@dataclass\n", ""),
        ("share: float", "share: int"), ("share: float = 0.5", "share = 0.5"), ("len(rows)", "(len(rows) + 1)"),
        ("from dataclasses import dataclass", "from pydantic.dataclasses import dataclass"),
        ("self.share", "'share'"), ("        return max(kept, least)", "        pass"),
    ],
)  # fmt: skip
def test_what_does_something_does(file: Path, old: str, new: str) -> None:
    assert changed(file, old, new)


def test_other_files_count_by_their_bytes(tmp_path: Path) -> None:
    path, found = tmp_path / "task.yaml", set()
    for text in ("a: 1", "a: 1 # one", "a: 2"):
        path.write_text(text)
        found.add(source_digest([path]))
    assert len(found) == 3


def test_all_files_count_in_their_order(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text("x = 1")
    assert len({source_digest(files) for files in ([], [file], [other], [file, other], [other, file])}) == 5


def test_all_of_the_package_s_own_source_can_be_digested() -> None:
    package = Path(__file__).resolve().parents[1]
    assert len(source_digest(sorted(package.glob("[hjrt]*/**/*.py")))) == 64
