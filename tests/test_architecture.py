"""docs/architecture.md is true: its paths are there, and its example becomes a method that passes the common suite."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from .conftest import guard

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HEADING = '[project.entry-points."safebasin.methods"]\n'


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


def test_every_path_on_the_page_is_there() -> None:
    named = set(re.findall(r"`((?:[\w.]+/)*[\w.]+(?:/|\.py|\.toml|\.md))`", PAGE))
    drawn = set(re.findall(r"\b(?:harness|restore)/[\w/]+(?:\.py)?", PAGE))
    paths = {path for path in named | drawn if path != "restore/methods/halve.py"}
    assert len(paths) > 25
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_room_is_in_the_diagram() -> None:
    rooms = {f"{house}/{path.name}" for house in ("restore", "harness") for path in (ROOT / house).iterdir()
             if (path / "__init__.py").is_file()}  # fmt: skip
    diagram = PAGE.split("```")[1]
    assert sorted(room for room in rooms if room not in diagram) == ["harness/terminal"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the example added, as the page says, and its entry points registered."""
    site = tmp_path_factory.mktemp("site")
    leave = shutil.ignore_patterns(".*", "build", "runs", "docs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, site / "safebasin", ignore=leave)
    (site / "safebasin" / "restore" / "methods" / "halve.py").write_text(block("python"))
    project = site / "safebasin" / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert HEADING in text
    project.write_text(text.replace(HEADING, HEADING + block("toml")))
    about = site / "safebasin-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: safebasin\nVersion: 0.1.0\n")
    lines = []
    for group, entries in tomllib.loads(project.read_text(encoding="utf-8"))["project"]["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (about / "entry_points.txt").write_text("\n".join(lines))
    return site


def test_the_example_passes_the_common_suite(copy: Path) -> None:
    words = "-m pytest -q -p no:cacheprovider tests/methods -k".split()
    command = [sys.executable, *words, "halve and not page"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(copy)
    done = subprocess.run(
        command, cwd=copy / "safebasin", env=environment, capture_output=True, text=True, timeout=guard(), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(".") > 20, done.stdout
